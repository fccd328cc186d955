"""Training of the vocoder: BigVGAN against discriminators (HiFi-GAN, arXiv 2010.05646, section 2.4).

All losses are means over what exists of a row, float32 [B]; sums weigh rows by their mel frames.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import MelConfig, OmniConfig
from omni_jax.errors import require
from omni_jax.models.discriminators import Map
from omni_jax.models.mel import log_mel
from omni_jax.training import voice
from omni_jax.training.batch import ClipBatch
from omni_jax.training.config import TrainConfig

Judgements = Sequence[Sequence[Map]]  # of each discriminator, its layers' maps, the scores last


def vocoder(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: ClipBatch) -> dict[str, jax.Array]:
    """BigVGAN says the mels of clips; the discriminators learn from clips and sayings.

    One loss for both: gradients reach the discriminators through their own part alone (which sees the sayings as
    given), and BigVGAN through the adversarial part, feature matching and the mels' distance (whose discriminators are
    given).
    """
    speech = run.speech
    frames = jnp.maximum(batch.frames, 1)  # an empty row is computed as one frame, and weighs nothing
    samples, pad = frames * speech.mel.hop, speech.mel.pad
    said = models["token2wav"].bigvgan(log_mel(batch.wave, speech.mel), frames)
    judges = models["discriminators"]
    real, made = judges(batch.wave[:, pad:-pad], samples), judges(jax.lax.stop_gradient(said), samples)
    judged = _given(judges)(said, samples)
    discriminator = discriminator_loss(real, made)
    parts = {"adversarial": generator_loss(judged), "matching": matching_loss(jax.lax.stop_gradient(real), judged),
             "mel": mel_distance(batch.wave, said, frames, speech.mel)}
    generator = (parts["adversarial"] + speech.match_weight * parts["matching"] + speech.mel_weight * parts["mel"])
    rows = {"loss": generator + discriminator, "discriminator": discriminator, **parts}
    weights = batch.frames.astype(jnp.float32)
    return {**{name: (weights * values).sum() for name, values in rows.items()}, "weight": weights.sum()}


def check(config: OmniConfig, run: TrainConfig) -> None:
    """Raises OmniError for settings that the vocoder cannot learn with."""
    voice.check(config, run)
    require(run.dtype == "float32", "dtype", f"{run.dtype!r}: the vocoder learns in float32 only; set dtype=float32")


def discriminator_loss(real: Judgements, made: Judgements) -> jax.Array:
    """Least squares: recorded sound should score 1, made sound 0. Equation 1, summed over the discriminators."""
    return sum(_mean(r[-1], (r[-1].values - 1) ** 2) + _mean(m[-1], m[-1].values**2)
               for r, m in zip(real, made, strict=True))


def generator_loss(made: Judgements) -> jax.Array:
    """Made sound should score 1. Equation 2, summed over the discriminators."""
    return sum(_mean(maps[-1], (maps[-1].values - 1) ** 2) for maps in made)


def matching_loss(real: Judgements, made: Judgements) -> jax.Array:
    """Distance of all layers' maps (scores too, as in the published code). Equation 4, summed over discriminators."""
    pairs = [pair for layers in zip(real, made, strict=True) for pair in zip(*layers, strict=True)]
    return sum(_mean(r, jnp.abs(r.values - m.values)) for r, m in pairs)


def mel_distance(wave: jax.Array, said: jax.Array, frames: jax.Array, config: MelConfig) -> jax.Array:
    """Mean distance between the log mels of a clip with its neighbouring samples (see ClipBatch) and of what is said
    instead of it, among the same neighbours. Equation 3."""
    within = jnp.pad(jnp.arange(said.shape[1]) < frames[:, None] * config.hop, ((0, 0), (config.pad, config.pad)))
    instead = jnp.where(within, jnp.pad(said, ((0, 0), (config.pad, config.pad))), wave)
    distance = jnp.abs(log_mel(instead, config) - log_mel(wave, config)).mean(-1)
    exist = jnp.arange(distance.shape[1]) < frames[:, None]
    return jnp.where(exist, distance, 0).sum(-1) / frames


def _given(network: nnx.Module) -> nnx.Module:
    """The same network, whose weights get no gradient."""
    graphdef, params = nnx.split(network)
    return nnx.merge(graphdef, jax.lax.stop_gradient(params))


def _mean(map_: Map, values: jax.Array) -> jax.Array:
    """Row means of values like the map's, over the steps that exist."""
    _, _, width, channels = values.shape
    exist = jnp.arange(values.shape[1]) < map_.steps[:, None]
    total = jnp.where(exist[..., None, None], values, 0).astype(jnp.float32).sum((1, 2, 3))
    return total / (map_.steps * width * channels)
