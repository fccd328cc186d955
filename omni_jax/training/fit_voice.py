"""A speaker vector for a voice, found by gradients through a frozen DiT: for checkpoints without a speaker encoder."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import MelConfig, OmniConfig
from omni_jax.inference.networks import abstract_networks
from omni_jax.training.batch import ClipBatch
from omni_jax.training.config import DataConfig, SpeechConfig, TrainConfig
from omni_jax.training.voice import flow
from omni_jax.weights import load_params
from omni_jax.weights.files import progress_bar

ROWS = 4  # times and noises of a step
WEIGHINGS = 8  # steps' worth of them that the loss is told of


class Fitted(NamedTuple):
    """vector: float32 [enc_emb_dim]; before, after: the flow-matching loss at the start, and with `vector`."""

    vector: np.ndarray
    before: float
    after: float


def fit_speaker(directory: str, config: OmniConfig, mesh: Mesh, mel: MelConfig, wave: np.ndarray, codes: np.ndarray,
                start: np.ndarray, steps: int, rate: float, seed: int = 0, progress: bool = False) -> Fitted:
    """The vector, from `start` on, with which the DiT of the checkpoint in `directory` best follows a recording
    (float32 [samples] at 24 kHz) whose codes are known and whose mel is the reference. Adam at `rate`, falling to 0."""
    graphdef, abstract = abstract_networks(config, mesh, jnp.float32, scanned=True, names=["token2wav"])["token2wav"]
    params = load_params(directory, config, {"token2wav": abstract}, progress)["token2wav"]
    batch = clip_of(config, mel, wave, codes)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    run = TrainConfig(directory, DataConfig(()), dtype="float32", speech=SpeechConfig(mel=mel, drop=0.0))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def loss(vector, params, batch, seeds):
        network = nnx.merge(graphdef, params)
        batch = batch._replace(vector=jnp.broadcast_to(vector, batch.vector.shape), seeds=seeds)
        sums = flow({"token2wav": network, "speaker_encoder": lambda _: batch.vector}, config, run, batch)
        return sums["loss"] / sums["weight"]

    @functools.partial(jax.jit, out_shardings=everywhere)
    def step(vector, state, params, batch, seeds):
        value, gradient = jax.value_and_grad(loss)(vector, params, batch, seeds)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(vector, updates), state, value

    seeds_of = lambda index: ((seed << 20) + np.arange(index * ROWS, (index + 1) * ROWS)).astype(np.uint32)
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        # Of the same times and noises, which no step has seen.
        weighed = lambda vector: float(np.mean([step(vector, state, params, batch, seeds_of(steps + i))[2]
                                                for i in range(WEIGHINGS)]))
        vector = jax.device_put(np.asarray(start, np.float32), everywhere)
        state = jax.device_put(optimizer.init(vector), everywhere)  # as a step lays it: it is compiled once
        before = weighed(vector)
        with progress_bar(steps, "fitting", progress, " steps") as bar:
            for index in range(steps):
                vector, state, _ = step(vector, state, params, batch, seeds_of(index))
                bar.update()
        return Fitted(np.asarray(vector), before, weighed(vector))


def clip_of(config: OmniConfig, mel: MelConfig, wave: np.ndarray, codes: np.ndarray) -> ClipBatch:
    """ROWS times a whole recording, whose codes stand for all of its frames but a last part of a code."""
    part = config.token2wav_config
    T, C, hop = part.dit_config.block_size, part.codes_per_block, mel.hop
    blocks, frames = -(-len(codes) // C), len(codes) * part.dit_config.repeats
    around = np.pad(wave, mel.pad, mode="reflect")
    stretch = lambda frames, room: np.pad(around[:frames * hop + 2 * mel.pad], (0, (room - frames) * hop))
    own = np.pad(codes, (0, blocks * C - len(codes)), constant_values=-1).reshape(blocks, C)
    rows = lambda array: np.repeat(np.asarray(array)[None], ROWS, axis=0)
    return ClipBatch(rows(stretch(frames, blocks * T)), rows(np.int32(frames)), rows(own),
                     np.zeros((ROWS, part.dit_config.enc_emb_dim), np.float32), np.ones(ROWS, bool),
                     rows(stretch(frames, frames)), np.zeros(ROWS, np.uint32))
