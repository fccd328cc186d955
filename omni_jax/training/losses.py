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


class TokenLosses(NamedTuple):
    """float32 [B, T] each: cross-entropy (nats), squared log-normaliser, and whether the guess was right (the target
    has the greatest logit)."""

    loss: jax.Array
    squared_normalizer: jax.Array
    right: jax.Array

    def sums(self, weights: jax.Array) -> "TokenLosses":
        """Sums over tokens by their weights, float32 [B, T]: float32 [] each."""
        return TokenLosses(*((weights * values).sum() for values in self))


def token_losses(head: nnx.Module, hidden: jax.Array, targets: jax.Array) -> TokenLosses:
    """hidden [B, T, D], targets int32 [B, T]; head: see `layers.logits`."""
    graphdef, params = nnx.split(head)
    # Each device goes through its own rows by itself. Left to XLA, the loop would gather the head for every piece, and
    # add up its gradient over all devices as often.
    own, mesh = functools.partial(_own_losses, graphdef), jax.sharding.get_abstract_mesh()
    rows = None if mesh.empty else resolve(("batch",), hidden.shape[:1], mesh)[0]
    if rows:
        part = PartitionSpec(rows)
        own = jax.shard_map(own, mesh=mesh, in_specs=(PartitionSpec(), part, part), out_specs=part,
                            axis_names={rows} if isinstance(rows, str) else set(rows), check_vma=False)
    return own(params, hidden, targets)


def _own_losses(graphdef: nnx.GraphDef, params: Any, hidden: jax.Array, targets: jax.Array) -> TokenLosses:
    """Of one device's rows."""
    B, T, _ = hidden.shape
    piece = math.gcd(T, max(PIECE // B, 1)) if B * T > PIECE else T
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(B, T // piece, piece, *x.shape[2:]), 1, 0),
                          (hidden, targets))
    kept = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)  # so that pieces' gradients add up in float32

    @jax.checkpoint  # the backward pass makes the logits again
    def weigh(_, piece):
        hidden, targets = piece
        head = nnx.merge(graphdef, jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), kept, params))
        return None, score_losses(logits(head, hidden), targets)

    losses = jax.lax.scan(weigh, None, pieces)[1]
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(B, T), losses)


def score_losses(scores: jax.Array, targets: jax.Array) -> TokenLosses:
    """Of logits [..., V] and targets int32 [...]: float32 [...] each."""
    normalizer = jax.nn.logsumexp(scores, axis=-1)
    # Picked by comparison: a gather along a vocabulary that is split over a mesh would bring it together.
    is_target = jnp.arange(scores.shape[-1]) == targets[..., None]
    target = jnp.where(is_target, scores, 0).sum(-1)
    right = target >= scores.max(-1)
    return TokenLosses(normalizer - target, normalizer**2, right.astype(jnp.float32))
