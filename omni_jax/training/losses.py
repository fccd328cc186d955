"""Losses over tokens, in float32, a piece of the row at a time: the logits of a whole row are never held."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

PIECE = 1024  # tokens of each row whose logits are held at once: 0.6 GB in float32 at the 7B's vocabulary


class TokenSums(NamedTuple):
    """Sums over tokens by their weights, float32 []: cross-entropy (nats), squared log-normaliser, and right guesses
    (where the target has the greatest logit)."""

    loss: jax.Array
    squared_normalizer: jax.Array
    right: jax.Array


def token_sums(logits_of: Callable, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    """hidden [B, T, D], targets int32 [B, T], weights float32 [B, T]; logits_of: [B, t, D] -> float32 [B, t, V]."""
    B, T, _ = hidden.shape
    piece = math.gcd(T, PIECE) if T > PIECE else T
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(B, T // piece, piece, *x.shape[2:]), 1, 0),
                          (hidden, targets, weights))

    @jax.checkpoint  # the backward pass makes the logits again
    def add(sums, piece):
        hidden, targets, weights = piece
        return jax.tree.map(jnp.add, sums, _sums(logits_of(hidden), targets, weights)), None

    zeros = TokenSums(*(jnp.zeros((), jnp.float32) for _ in TokenSums._fields))
    return jax.lax.scan(add, zeros, pieces)[0]


def _sums(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # Picked by comparison: a gather along a vocabulary that is split over a mesh would bring it together.
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    scores = jnp.where(is_target, logits, 0).sum(-1)
    right = scores >= logits.max(-1)
    return TokenSums((weights * (normalizer - scores)).sum(), (weights * normalizer**2).sum(), (weights * right).sum())
