"""A run's first steps without the loop around them, for comparisons."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from omni_jax.models.thinker import Thinker
from omni_jax.training import setup as setups
from omni_jax.training.batch import TrainBatch
from omni_jax.training.config import TrainConfig
from omni_jax.training.datasets import train_batches
from omni_jax.training.feed import put
from omni_jax.training.packing import to_batch
from omni_jax.training.step import make_eval_step, make_train_step
from omni_jax.weights.names import nest


def batches(run: TrainConfig, count: int) -> list[TrainBatch]:
    """The run's first batches [A, …]."""
    loader = train_batches(run, setups.prepare(run).processor)
    found = [loaded.arrays for loaded in itertools.islice(loader, count)]
    loader.close()
    return found


def follow(run: TrainConfig, given: list[TrainBatch]) -> tuple[list[float], dict[str, np.ndarray], dict]:
    """(the loss of each step, what learnt, what was frozen) after these batches."""
    setup = setups.prepare(run)
    with jax.set_mesh(setup.mesh):
        state, frozen = setups.load(setup)
        step, losses = make_train_step(setup.plan, setup.shardings), []
        for batch in given:
            state, metrics = step(state, frozen, put(batch, setup.mesh))
            losses.append(float(metrics["loss"]))
    return losses, jax.tree.map(np.asarray, state.params), jax.tree.map(np.asarray, frozen)


def weighed(setup: setups.Setup, rows: Sequence[Sequence[tuple[list, str]]],
            length: int) -> tuple[dict[str, jax.Array], TrainBatch, Thinker]:
    """(the objective's sums over rows of conversations (asked, answer), their batch, the Thinker) as the run begins."""
    talk = lambda asked, answer: [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    examples = [[setup.processor.example(talk(*turn)) for turn in row] for row in rows]
    made = to_batch(examples, length, setup.plan.config, setup.plan.run.data.media)
    batch = put(jax.tree.map(lambda x: x[None], made), setup.mesh)
    with jax.set_mesh(setup.mesh):
        state, frozen = setups.load(setup)
        sums = make_eval_step(setup.plan)(state.params, frozen, batch)
        tree = nest(dict(sorted({**state.params, **frozen}.items())))
        thinker = nnx.merge(setup.plan.graphdefs["thinker"], tree["thinker"])
    return sums, made, thinker


def joined(batch: TrainBatch) -> TrainBatch:
    """The A micro-batches of a step as one."""
    parts, rows, length = batch.token_ids.shape

    def media(group):
        offset = (np.arange(parts) * rows * length).reshape(-1, *[1] * (group.destination.ndim - 1))
        moved = np.where(group.destination == rows * length, parts * rows * length, group.destination + offset)
        return group._replace(destination=moved)

    batch = batch._replace(audio=tuple(map(media, batch.audio)), vision=tuple(map(media, batch.vision)))
    return jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), batch)
