"""Scaled dot-product attention with grouped heads and a boolean mask; the hardware decides how it is computed."""

import functools
import math

import jax
import jax.numpy as jnp

from omni_jax.models import kernels
from omni_jax.sharding import on_one_device

# Scores held at once, in numbers (float32): longer queries are taken in pieces, so that a picture of 16,384 tokens
# or a prompt of 32,768 does not need its whole square.
MAX_SCORES = 1 << 27
# On a CPU, what is larger than this is computed a head and a block of queries at a time, whose scores stay in the
# processor's cache: two to three times faster (measured at the 7B's widths), and not worth its loop below.
CPU_SCORES = 1 << 22
CPU_ROWS = 900  # of a block at most: its queries times the heads that share their keys
# Causal attention without a kernel: so many parts of the queries, each of which reads no key beyond its last query's.
# Eight compute 9/16 of the square.
STRIPES = 8


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array,
           causal: tuple[jax.Array, jax.Array] | None = None, rows: str = "batch") -> jax.Array:
    """q [B, T, N, H], k and v [B, K, S, H], mask bool [B, T or 1, S] (True: may look) -> [B, T, N, H].

    Query head n reads kv head n // (N / K). Scores and softmax are float32. A row that may look at nothing gets
    some finite value (padding; nobody reads it). causal (valid bool [B, S], slot int32 []): the mask in few numbers,
    where it says that query i may look at valid slots up to slot + i; some kernels make their own of it. rows: the
    logical axis of B.
    """
    split = kernels.split(q, k, rows)
    kernel = kernels.choose(q, k, mask, causal is not None, split)
    if kernel == "cudnn":
        return kernels.by_cudnn(q, k, v, mask, split)
    if kernel == "flash":
        return _by_flash(q, k, v, mask, *(causal or (mask[:, 0], jnp.int32(k.shape[2]))), split)
    return _by_xla(q, k, v, mask)


def attend_packed(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """q [B, T, N, H], k and v [B, K, T, H], segments int32 [B, T] -> [B, T, N, H]: each position reads itself and the
    earlier ones of its own segment. Padding may be a segment as well."""
    B, T, N, _ = q.shape
    split = kernels.split(q, k, "batch")
    if kernel := kernels.choose_packed(q, split):
        return (kernels.by_splash if kernel == "splash" else kernels.packed_by_cudnn)(q, k, v, segments, split)
    stripes = math.gcd(T, STRIPES) if B * N * T * T >= CPU_SCORES else 1

    def stripe(end):
        own = slice(end - T // stripes, end)
        causal = jnp.arange(end) <= jnp.arange(T)[own, None]
        mask = causal & (segments[:, own, None] == segments[:, None, :end])
        return _by_xla(q[:, own], k[:, :, :end], v[:, :, :end], mask)

    return jnp.concatenate([stripe((i + 1) * (T // stripes)) for i in range(stripes)], axis=1)


def attend_apart(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array, own_k: jax.Array,
                 own_v: jax.Array) -> jax.Array:
    """`attend` for one query of each row, q [B, 1, N, H]: it looks at the valid (bool [B, S]) slots of k, v
    [B, K, S, H] and at its own key and value [B, 1, K, H], which have no slot yet."""
    B, _, N, H = q.shape
    K = k.shape[1]
    own_k, own_v = (own.reshape(B, K, 1, H) for own in (own_k, own_v))
    q = q.reshape(B, K, N // K, H)
    scores = jnp.einsum("bkgh,bksh->bkgs", q, k, preferred_element_type=jnp.float32) / math.sqrt(H)
    scores = jnp.where(valid[:, None, None], scores, jnp.finfo(jnp.float32).min)
    own_score = jnp.sum(q * own_k, axis=-1, keepdims=True, dtype=jnp.float32) / math.sqrt(H)
    top = jnp.maximum(scores.max(-1, keepdims=True), own_score)
    weights, own_weight = jnp.exp(scores - top), jnp.exp(own_score - top)
    read = jnp.einsum("bkgs,bksh->bkgh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    read = (read + own_weight * own_v) / (weights.sum(-1, keepdims=True) + own_weight)
    return read.astype(v.dtype).reshape(B, 1, N, H)


def attend_blocks(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention of many small blocks: q [R, n, T, N, H], k and v [R, n, S, N, H], mask bool [R, n, S] (True: may look)
    -> [R, n, T, N, H]. Scores and softmax are float32. A row that may look at nothing gets some finite value."""
    scores = jnp.einsum("rbtnh,rbsnh->rbnts", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    scores = jnp.where(mask[:, :, None, None], scores, jnp.finfo(jnp.float32).min)
    return jnp.einsum("rbnts,rbsnh->rbtnh", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _by_flash(q, k, v, mask, valid, slot, split):
    return kernels.by_flash(q, k, v, valid, slot, split)


def _flash_forward(q, k, v, mask, valid, slot, split):
    return kernels.by_flash(q, k, v, valid, slot, split), (q, k, v, mask)


def _flash_backward(split, kept, gradient):
    *inputs, mask = kept
    return *jax.vjp(lambda q, k, v: _in_pieces(q, k, v, mask), *inputs)[1](gradient), None, None, None


_by_flash.defvjp(_flash_forward, _flash_backward)


def _by_xla(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    B, T, N, _ = q.shape
    if T == 1 or B * N * T * k.shape[2] < CPU_SCORES:
        return _at_once(q, k, v, mask)
    # The loop over heads would make every device of a mesh gather every other's heads.
    return _by_head(q, k, v, mask) if kernels.platform() == "cpu" and on_one_device() else _in_pieces(q, k, v, mask)


def _at_once(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    B, T, N, H = q.shape
    K = k.shape[1]
    q = q.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkgh,bksh->bkgts", q, k, preferred_element_type=jnp.float32) / math.sqrt(H)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bksh->btkgh", weights, v).reshape(B, T, N, H)


def _in_pieces(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """As few pieces of the queries as MAX_SCORES allows; a backward pass computes each piece's scores again."""
    B, T, N, _ = q.shape
    S = k.shape[2]
    pieces = next((n for n in range(1, T + 1) if T % n == 0 and B * N * T // n * S <= MAX_SCORES), T)
    if pieces == 1:
        return _at_once(q, k, v, mask)

    def split(x):
        return jnp.moveaxis(x.reshape(B, pieces, T // pieces, *x.shape[2:]), 1, 0)

    own_rows = mask.shape[1] > 1
    some = jax.checkpoint(lambda q, own: _at_once(q, k, v, own if own_rows else mask), prevent_cse=False)
    out = jax.lax.map(lambda piece: some(*piece), (split(q), split(mask) if own_rows else None))
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def _by_head(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """One kv head of one row and a block of its queries at a time, as plain matrix products; a backward pass computes
    each block's scores again."""
    B, T, N, H = q.shape
    K, S = k.shape[1:3]
    G = N // K
    block = max(size for size in range(1, T + 1) if T % size == 0 and (G * size <= CPU_ROWS or size == 1))
    blocks = T // block
    q = jnp.moveaxis(q.reshape(B, blocks, block, K, G, H), (3, 4), (1, 3)).reshape(B * K, blocks, G * block, H)
    own_rows = mask.shape[1] > 1
    mask = mask.reshape(B, blocks if own_rows else 1, -1, S)

    def head(inputs):
        index, queries, keys, values = inputs
        row_mask = mask[index // K]

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def some(inputs):
            at, queries = inputs
            scores = jax.lax.dot_general(queries, keys, (((1,), (1,)), ((), ())),
                                         preferred_element_type=jnp.float32) / math.sqrt(H)
            seen = row_mask[at if own_rows else 0]
            scores = jnp.where(seen, scores.reshape(G, block, S), -1e30).reshape(G * block, S)
            weights = jnp.exp(scores - scores.max(-1, keepdims=True))
            read = jnp.matmul(weights.astype(v.dtype), values, preferred_element_type=jnp.float32)
            return (read / weights.sum(-1, keepdims=True)).astype(v.dtype)

        return jax.lax.map(some, (jnp.arange(blocks), queries))

    # The barrier keeps what made keys and values out of the loops, where it would be made again for every block.
    k, v = jax.lax.optimization_barrier((k.reshape(B * K, S, H), v.reshape(B * K, S, H)))
    out = jax.lax.map(head, (jnp.arange(B * K), q, k, v)).reshape(B, K, blocks, G, block, H)
    return jnp.moveaxis(out, (1, 3), (3, 4)).reshape(B, T, N, H)
