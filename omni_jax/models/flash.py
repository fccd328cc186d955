"""Attention over a long cache on TPU as one kernel: the scores never leave the chip's own memory.

Why not one of the kernels that come with JAX (0.10.2): ops.tpu.flash_attention knows neither grouped heads nor a first
slot, ops.tpu.splash_attention takes the first slot as a constant, so that every chunk of a prompt would be a program of
its own (or reads a mask of all heads from memory), and the paged kernels want a cache of pages without holes.
Source: FlashAttention-2 (arXiv 2307.08691), algorithm 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

NEVER = -1e30  # the score of a slot that may not be looked at
QUERY_ROWS = 1024  # of one kv head and block: more overflow the on-chip memory of v5e and v5p
SLOT_BLOCK = 1024
FEWEST_TOKENS, FEWEST_SLOTS = 16, 256  # smaller blocks keep the matrix unit idle: XLA's own attention is no slower


def blocks(T: int, N: int, K: int, S: int) -> tuple[int, int] | None:
    """(tokens, slots) of one block for T queries of N heads over S slots of K heads; None: no kernel for these."""
    tokens = math.gcd(T, 1 << ((QUERY_ROWS * K // N).bit_length() - 1)) if N <= QUERY_ROWS * K else 0
    slots = math.gcd(S, SLOT_BLOCK)
    return (tokens, slots) if tokens >= FEWEST_TOKENS and slots >= FEWEST_SLOTS else None


def flash(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array, slot: jax.Array,
          interpret: bool = False) -> jax.Array:
    """q [B, T, N, H], k and v [B, K, S, H], valid bool [B, S], slot int32 [] -> [B, T, N, H].

    Query i looks at valid slots up to slot + i; blocks of slots that no query of a block sees are never fetched. A
    query that sees nothing gets some finite value. `blocks` must know the sizes.
    """
    B, T, N, H = q.shape
    K, S = k.shape[1:3]
    G, (tokens, block) = N // K, blocks(T, N, K, S)

    def seen(t, s, slot):
        return jnp.minimum(s, (slot[0] + (t + 1) * tokens - 1) // block)

    queries = pl.BlockSpec((1, 1, G, tokens, H), lambda b, h, t, s, slot: (b, h, 0, t, 0))
    slots = pl.BlockSpec((1, 1, block, H), lambda b, h, t, s, slot: (b, h, seen(t, s, slot), 0))
    marks = pl.BlockSpec((1, 1, block), lambda b, h, t, s, slot: (b, 0, seen(t, s, slot)))
    rows = lambda width: pltpu.VMEM((G * tokens, width), jnp.float32)
    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1, grid=(B, K, T // tokens, S // block), in_specs=[queries, slots, slots, marks],
        out_specs=queries, scratch_shapes=[rows(1), rows(1), rows(H)])
    moved = 2 * q.size + 2 * B * K * (T // tokens) * S * H  # every block of queries reads all slots
    cost = pl.CostEstimate(flops=4 * B * T * N * S * H, bytes_accessed=moved * q.dtype.itemsize,
                           transcendentals=B * T * N * S)
    order = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"))
    grouped = jnp.moveaxis(q.reshape(B, T, K, G, H), 1, 3)  # [B, K, G, T, H]
    out = pl.pallas_call(
        functools.partial(_block, scale=H**-0.5), grid_spec=grid, compiler_params=order, cost_estimate=cost,
        out_shape=jax.ShapeDtypeStruct(grouped.shape, q.dtype), interpret=interpret,
    )(jnp.reshape(slot, 1).astype(jnp.int32), grouped, k, v, valid.astype(jnp.int32)[:, None])
    return jnp.moveaxis(out, 3, 1).reshape(B, T, N, H)


def _block(slot, q, k, v, valid, out, top, total, sums, *, scale: float):
    """A block of queries (rows: the query heads of one kv head, by tokens) against a block of slots. `top`, `total`:
    each row's largest score so far and the sum of its weights; `sums`: of its weighted values."""
    t, s = pl.program_id(2), pl.program_id(3)
    tokens, block = q.shape[3], k.shape[2]

    @pl.when(s == 0)
    def _():
        top[...] = jnp.full_like(top, NEVER)
        total[...] = jnp.zeros_like(total)
        sums[...] = jnp.zeros_like(sums)

    @pl.when(s * block < slot[0] + (t + 1) * tokens)
    def _():
        rows = q[0, 0].reshape(-1, q.shape[-1])
        scores = jax.lax.dot_general(rows, k[0, 0], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
        place = lambda axis: jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
        own = slot[0] + t * tokens + place(0) % tokens
        scores = jnp.where((s * block + place(1) <= own) & (valid[0] > 0), scores * scale, NEVER)
        new = jnp.maximum(top[...], scores.max(-1, keepdims=True))
        shrink, weights = jnp.exp(top[...] - new), jnp.exp(scores - new)
        total[...] = total[...] * shrink + weights.sum(-1, keepdims=True)
        sums[...] = sums[...] * shrink + jnp.dot(weights.astype(v.dtype), v[0, 0], preferred_element_type=jnp.float32)
        top[...] = new

    @pl.when(s == pl.num_programs(3) - 1)
    def _():
        out[0, 0] = (sums[...] / total[...]).reshape(out.shape[2:]).astype(out.dtype)
