"""Losses over tokens, in float32, a piece of the row at a time: the logits of a whole row are never held."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from omni_jax.models.layers import logits
from omni_jax.sharding import resolve

PIECE = 1024  # tokens whose logits a device holds at once: 0.6 GB in float32 at the 7B's vocabulary


class TokenSums(NamedTuple):
    """Sums over tokens by their weights, float32 []: cross-entropy (nats), squared log-normaliser, and right guesses
    (where the target has the greatest logit)."""

    loss: jax.Array
    squared_normalizer: jax.Array
    right: jax.Array


def token_sums(head: nnx.Module, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    """hidden [B, T, D], targets int32 [B, T], weights float32 [B, T]; head: see `layers.logits`."""
    graphdef, params = nnx.split(head)
    # Each device goes through its own rows by itself. Left to XLA, the loop would gather the head for every piece, and
    # add up its gradient over all devices as often.
    own, mesh = functools.partial(_own_sums, graphdef), jax.sharding.get_abstract_mesh()
    rows = None if mesh.empty else resolve(("batch",), hidden.shape[:1], mesh)[0]
    if rows:
        part = PartitionSpec(rows)
        own = jax.shard_map(own, mesh=mesh, in_specs=(PartitionSpec(), part, part, part), out_specs=part,
                            axis_names={rows} if isinstance(rows, str) else set(rows), check_vma=False)
    return jax.tree.map(jnp.sum, own(params, hidden, targets, weights))


def _own_sums(graphdef: nnx.GraphDef, params: Any, hidden: jax.Array, targets: jax.Array,
              weights: jax.Array) -> TokenSums:
    """float32 [1] each, of one device's rows."""
    B, T, _ = hidden.shape
    piece = math.gcd(T, max(PIECE // B, 1)) if B * T > PIECE else T
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(B, T // piece, piece, *x.shape[2:]), 1, 0),
                          (hidden, targets, weights))
    kept = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)  # so that pieces' gradients add up in float32

    @jax.checkpoint  # the backward pass makes the logits again
    def add(sums, piece):
        hidden, targets, weights = piece
        head = nnx.merge(graphdef, jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), kept, params))
        return jax.tree.map(jnp.add, sums, score_sums(logits(head, hidden), targets, weights)), None

    zeros = TokenSums(*(jnp.zeros((1,), jnp.float32) for _ in TokenSums._fields))
    return jax.lax.scan(add, zeros, pieces)[0]


def score_sums(scores: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    """Of logits [..., V], targets int32 [...] and weights [...]."""
    normalizer = jax.nn.logsumexp(scores, axis=-1)
    # Picked by comparison: a gather along a vocabulary that is split over a mesh would bring it together.
    is_target = jnp.arange(scores.shape[-1]) == targets[..., None]
    target = jnp.where(is_target, scores, 0).sum(-1)
    right = target >= scores.max(-1)
    return TokenSums((weights * (normalizer - target)).sum(), (weights * normalizer**2).sum(), (weights * right).sum())
