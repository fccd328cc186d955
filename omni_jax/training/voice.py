"""Training of codes and mel: the DiT by flow matching, alone or with the codec encoder, and the encoder alone against a
Token2Wav that stays as it is.

Objectives have the form of training.objectives, on batches of clips.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from omni_jax.config import OmniConfig
from omni_jax.inference.token2wav import block_noise
from omni_jax.models.codec_encoder import nearest
from omni_jax.models.dit import DiT
from omni_jax.models.mel import log_mel
from omni_jax.training.batch import ClipBatch
from omni_jax.training.codebook import seen_codes
from omni_jax.training.config import TrainConfig
from omni_jax.training.losses import score_losses

OTHER_DRAWS = 1 << 31  # beside those of a row's blocks, which are numbered from 0


def check(config: OmniConfig, run: TrainConfig) -> None:
    """Raises OmniError if the run's mels are none that Token2Wav can speak."""
    config.token2wav_config.bigvgan_config.require_mel(run.speech.mel, "speech.mel")


class Draws(NamedTuple):
    """The randomness of B rows, of their seeds alone."""

    noise: jax.Array    # float32 [B, n, T, M]
    t: jax.Array        # float32 [B], uniform in 0..1: 0 is noise, 1 is mel
    dropped: jax.Array  # bool [B]: rows that learn the unguided velocity


def flow(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: ClipBatch) -> dict[str, jax.Array]:
    """The DiT learns the velocity from noise to the mel of clips whose codes are given; frames without code weigh
    nothing. Loss: squared error, the mean of mel bins and frames (arXiv 2210.02747, with straight paths)."""
    dit, mel, draws = models["token2wav"].dit, clip_mel(run, batch), draw(run, batch, config)
    weights = existing(batch, config) * jnp.repeat(batch.codes >= 0, dit.config.repeats, axis=-1)
    codes = jnp.where(draws.dropped[:, None, None], 0, jnp.maximum(batch.codes, 0))
    errors = flow_errors(models, run, batch, mel, dit.codec_embed(codes), draws)
    return {"loss": (weights * errors).sum(), "weight": weights.sum()}


def codec(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: ClipBatch) -> dict[str, Any]:
    """DiT and codec encoder learn together: mel -> vectors -> their nearest rows of the DiT's table -> mel.

    The choice passes gradients straight through; rows are drawn to their vectors and vectors to their rows as in
    VQ-VAE (arXiv 1711.00937, equation 3), distances being means over the width of the table. "seen": what
    `codebook.revive` needs. Where the DiT is frozen (objective "encode") the encoder alone learns which codes it speaks
    best.
    """
    dit, encoder = models["token2wav"].dit, models["codec_encoder"]
    mel, draws, frames = clip_mel(run, batch), draw(run, batch, config), existing(batch, config)
    z = encoder(mel, batch.frames, remat=run.remat).astype(jnp.float32)
    codes = nearest(jax.lax.stop_gradient(z), sound_table(dit))
    chosen = dit.codec_embed(codes).astype(jnp.float32)
    straight = z + jax.lax.stop_gradient(chosen - z)
    nothing = dit.codec_embed(jnp.zeros_like(codes))
    embedded = jnp.where(draws.dropped[:, None, None, None], nothing, straight.astype(nothing.dtype))
    errors = flow_errors(models, run, batch, mel, embedded, draws)
    weights = of_codes(frames, config)  # so all parts are divided by the same sum
    parts = {"flow": (frames * errors).sum(),
             "codebook": (weights * ((jax.lax.stop_gradient(z) - chosen) ** 2).mean(-1)).sum(),
             "commitment": (weights * ((z - jax.lax.stop_gradient(chosen)) ** 2).mean(-1)).sum()}
    loss = parts["flow"] + parts["codebook"] + run.speech.commitment * parts["commitment"]
    seen = seen_codes(jax.lax.stop_gradient(z), codes, weights > 0, batch.seeds, dit.config.sounds)
    return {"loss": loss, **parts, "weight": frames.sum(), "seen": seen}


def distill(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: ClipBatch) -> dict[str, jax.Array]:
    """The encoder learns to read the codes (`batch.codes`) that Token2Wav spoke: cross-entropy (nats) over the rows of
    its table by their distance. Codes that are not sounds weigh nothing."""
    dit, encoder = models["token2wav"].dit, models["codec_encoder"]
    valid = (batch.codes >= 0) & (batch.codes < dit.config.sounds) & (of_codes(existing(batch, config), config) > 0)
    weights = valid.astype(jnp.float32)
    z = encoder(clip_mel(run, batch), batch.frames, remat=run.remat)
    sums = score_losses(encoder.scores(z, sound_table(dit)), batch.codes).sums(weights)
    return {"loss": sums.loss, "accuracy": sums.right, "weight": weights.sum()}


def flow_errors(models: dict[str, Any], run: TrainConfig, batch: ClipBatch, mel: jax.Array, embedded: jax.Array,
                draws: Draws) -> jax.Array:
    """Squared errors of the DiT's velocity, float32 [B, n, T], the mean of mel bins. mel [B, n, T, M]; embedded
    [B, n, codes of a block, E]: the codes' embeddings, of dropped rows that of code 0."""
    dit = models["token2wav"].dit
    vector, reference = speaker_of(models, run, batch, draws.dropped)
    given = dit.given_embedded(embedded, dit.guided_voice(vector, reference))
    view = dit.view(jnp.int32(0), batch.frames, mel.shape[1], jnp.int32(mel.shape[1]), guided=False)
    t = draws.t[:, None, None, None]
    x = (1 - t) * draws.noise + t * mel
    velocity = dit.velocity(x, given, dit.modulations(draws.t).of_rows(), view, run.remat)
    return ((velocity.astype(jnp.float32) - (mel - draws.noise)) ** 2).mean(-1)


def speaker_of(models: dict[str, Any], run: TrainConfig, batch: ClipBatch,
               dropped: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(speaker vectors [B, enc_emb_dim], reference mels [B, T, M]) in the DiT's dtype, zeros in dropped rows. Where no
    vector is given, the speaker encoder hears it from the reference."""
    dtype = models["token2wav"].dit.input.weight.dtype
    reference = log_mel(batch.reference, run.speech.mel).astype(dtype)
    vector = jnp.where(batch.named[:, None], batch.vector.astype(dtype), models["speaker_encoder"](reference))
    return jnp.where(dropped[:, None], 0, vector), jnp.where(dropped[:, None, None], 0, reference)


def draw(run: TrainConfig, batch: ClipBatch, config: OmniConfig) -> Draws:
    """A row's noise is that of its seed and each block's number, as when it is spoken."""
    dit = config.token2wav_config.dit_config
    uniform = lambda seed: jax.random.uniform(jax.random.fold_in(jax.random.key(seed), OTHER_DRAWS), (2,))
    t, share = jnp.moveaxis(jax.vmap(uniform)(batch.seeds), -1, 0)
    noise = block_noise(batch.seeds, 0, batch.codes.shape[1], (dit.block_size, dit.mel_dim))
    return Draws(noise, t, share < run.speech.drop)


def clip_mel(run: TrainConfig, batch: ClipBatch) -> jax.Array:
    """float32 [B, n, T, M]."""
    mel = log_mel(batch.wave, run.speech.mel)
    return mel.reshape(*batch.codes.shape[:2], -1, mel.shape[-1])


def existing(batch: ClipBatch, config: OmniConfig) -> jax.Array:
    """float32 [B, n, T]: 1 for mel frames that exist, 0 for padding."""
    n, T = batch.codes.shape[1], config.token2wav_config.dit_config.block_size
    return (jnp.arange(n * T).reshape(n, T) < batch.frames[:, None, None]).astype(jnp.float32)


def of_codes(frames: jax.Array, config: OmniConfig) -> jax.Array:
    """float32 [B, n, codes of a block]: the sum over each code's frames [B, n, T]."""
    return frames.reshape(*frames.shape[:2], -1, config.token2wav_config.dit_config.repeats).sum(-1)


def sound_table(dit: DiT) -> jax.Array:
    """[V, E]: the rows of the DiT's codec table that are sounds."""
    return dit.codec_embed.weight[...][:dit.config.sounds]
