"""Scaled dot-product attention with grouped heads and a boolean mask."""

import math

import jax
import jax.numpy as jnp

# Scores held at once, in numbers (float32): longer queries are taken in pieces, so that a picture of 16,384 tokens
# or a prompt of 32,768 does not need its whole square.
MAX_SCORES = 1 << 27


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """q [B, T, N, H], k and v [B, K, S, H], mask bool [B, T or 1, S] (True: may look) -> [B, T, N, H].

    Query head n reads kv head n // (N / K). Scores and softmax are float32. A row that may look at nothing gets
    some finite value (padding; nobody reads it).
    """
    B, T, N, _ = q.shape
    S = k.shape[2]
    pieces = next((n for n in range(1, T + 1) if T % n == 0 and B * N * T // n * S <= MAX_SCORES), T)
    if pieces == 1:
        return _attend(q, k, v, mask)
    mask = jnp.broadcast_to(mask, (B, T, S))
    split = lambda x: jnp.moveaxis(x.reshape(B, pieces, T // pieces, *x.shape[2:]), 1, 0)
    out = jax.lax.map(lambda piece: _attend(piece[0], k, v, piece[1]), (split(q), split(mask)))
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    B, T, N, H = q.shape
    K = k.shape[1]
    q = q.reshape(B, T, K, N // K, H)
    scores = jnp.einsum("btkgh,bksh->bkgts", q, k, preferred_element_type=jnp.float32) / math.sqrt(H)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bksh->btkgh", weights, v).reshape(B, T, N, H)
