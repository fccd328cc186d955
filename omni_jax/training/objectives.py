"""What a run minimises: each objective is a pure function from networks and a batch to sums over what it weighs.

The step divides the sums by the summed weights of all its micro-batches, so that accumulating equals one large batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.models.thinker import Thinker, insert
from omni_jax.models.tmrope import position_ids
from omni_jax.sharding import constrain
from omni_jax.training.batch import TrainBatch
from omni_jax.training.config import TrainConfig
from omni_jax.training.losses import token_sums

Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """networks: the roots of the parameter tree that it needs. sums(models, config, run, batch): float32 [] each, of
    which "loss" is minimised and "weight" divides them all."""

    networks: tuple[str, ...]
    sums: Callable[[dict[str, Any], OmniConfig, TrainConfig, TrainBatch], Sums]


def text(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """Cross-entropy (nats) of what the assistant says, with PaLM's z-loss (arXiv 2204.02311, section 5)."""
    thinker = models["thinker"]
    hidden = thinker_hidden(thinker, config, run, batch)
    targets, weights = shifted(batch)
    sums = token_sums(thinker.head, hidden, targets, weights)
    return {"loss": sums.loss + run.z_loss * sums.squared_normalizer, "cross_entropy": sums.loss,
            "accuracy": sums.right, "weight": weights.sum()}


def thinker_hidden(thinker: Thinker, config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> jax.Array:
    """The Thinker's final-norm hidden vectors [B, T, D] of packed rows."""
    x = constrain(thinker.embed(batch.token_ids), "batch", None, None)
    for blocks in batch.audio:
        x = insert(x, thinker.audio(blocks.mel, blocks.frames, remat=run.remat), blocks.destination)
    for windows in batch.vision:
        x = insert(x, thinker.vision(windows.pixels, windows.cells, remat=run.remat), windows.destination)
    lengths = (batch.segments > 0).sum(-1)
    positions, _ = position_ids(config.thinker_config, batch.token_ids, lengths, batch.vision_grid,
                                batch.seconds_per_grid, jnp.zeros_like(lengths), batch.segments)
    return thinker.decoder.packed(constrain(x, "batch", None, None), positions, batch.segments, remat=run.remat)


def shifted(batch: TrainBatch) -> tuple[jax.Array, jax.Array]:
    """(targets int32 [B, T], weights float32 [B, T]): the next token of the same conversation."""
    following = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
    same = following(batch.segments) == batch.segments
    return following(batch.token_ids), jnp.where(same, following(batch.weights), 0)


OBJECTIVES = {"text": Objective(("thinker",), text)}


def find(name: str) -> Objective:
    """The objective of that name. Raises OmniError."""
    if name not in OBJECTIVES:
        raise OmniError(f"objective {name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
