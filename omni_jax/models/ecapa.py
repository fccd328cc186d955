"""ECAPA-TDNN: the mel of a reference recording to one vector of its voice."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import DiTConfig
from omni_jax.models.layers import Conv1d

SMALLEST_VARIANCE = 1e-12


class SqueezedBlock(nnx.Module):
    """1x1 convolution, Res2Net (each group of channels also sees the group before it), 1x1 convolution, then channels
    scaled by what the whole recording says of them; all added to the input."""

    def __init__(self, rngs: nnx.Rngs, config: DiTConfig, layer: int, dtype: Any):
        C, scale = config.enc_channels[layer], config.enc_res2net_scale
        conv = lambda *sizes, **options: Conv1d(rngs, *sizes, 1, dtype, **options)
        self.scale = scale
        self.before = conv(C, C, 1)
        self.groups = nnx.List([conv(C // scale, C // scale, config.enc_kernel_sizes[layer],
                                     dilation=config.enc_dilations[layer]) for _ in range(scale - 1)])
        self.after = conv(C, C, 1)
        self.squeeze = conv(C, config.enc_se_channels, 1)
        self.excite = conv(config.enc_se_channels, C, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        first, *others = jnp.split(_activated(self.before, x), self.scale, axis=-1)
        parts = [first]
        for conv, part in zip(self.groups, others, strict=True):
            parts.append(_activated(conv, part if len(parts) == 1 else part + parts[-1]))
        h = _activated(self.after, jnp.concatenate(parts, axis=-1))
        gain = self.excite(jax.nn.relu(self.squeeze(h.mean(axis=1, keepdims=True))))
        return h * jax.nn.sigmoid(gain) + x


class ECAPA(nnx.Module):
    """Source: ECAPA_TimeDelayNet (arXiv 2005.07143)."""

    def __init__(self, rngs: nnx.Rngs, config: DiTConfig, dtype: Any):
        channels, taps, dilations = config.enc_channels, config.enc_kernel_sizes, config.enc_dilations
        C = channels[-1]
        self.first = Conv1d(rngs, config.mel_dim, channels[0], taps[0], 1, dtype, dilations[0])
        self.blocks = nnx.List([SqueezedBlock(rngs, config, i, dtype) for i in range(1, len(channels) - 1)])
        self.join = Conv1d(rngs, C, C, taps[-1], 1, dtype, dilations[-1])
        self.attention = Conv1d(rngs, 3 * C, config.enc_attention_channels, 1, 1, dtype)
        self.scores = Conv1d(rngs, config.enc_attention_channels, C, 1, 1, dtype)
        self.output = Conv1d(rngs, 2 * C, config.enc_dim, 1, 1, dtype)

    def __call__(self, mel: jax.Array) -> jax.Array:
        """mel [B, T, M], T above the reach of each convolution -> [B, enc_dim]."""
        h, outputs = _activated(self.first, mel.astype(self.first.weight.dtype)), []
        for block in self.blocks:
            h = block(h)
            outputs.append(h)
        h = _activated(self.join, jnp.concatenate(outputs, axis=-1))
        whole = [jnp.broadcast_to(value, h.shape) for value in _statistics(h, jnp.full_like(h, 1 / h.shape[1]))]
        scores = self.scores(jnp.tanh(_activated(self.attention, jnp.concatenate([h, *whole], axis=-1))))
        pooled = _statistics(h, jax.nn.softmax(scores, axis=1))
        return self.output(jnp.concatenate(pooled, axis=-1))[:, 0]


class SpeakerEncoder(ECAPA):
    """A few seconds of a voice to the speaker vector that the DiT takes, [B, enc_emb_dim] from mel [B, T, M]; trained
    with the DiT. No release has one: of their speakers the vectors are given."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs, dtype: Any):
        super().__init__(rngs, dataclasses.replace(config, enc_dim=config.enc_emb_dim), dtype)


def _activated(conv: Conv1d, x: jax.Array) -> jax.Array:
    """Here convolutions see the recording mirrored at its ends."""
    x = jnp.pad(x, ((0, 0), (conv.reach, conv.reach), (0, 0)), mode="reflect") if conv.reach else x
    return jax.nn.relu(conv(x, padded=True))


def _statistics(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted mean and standard deviation over time, computed in float32: [B, 1, C] each."""
    y, weights = x.astype(jnp.float32), weights.astype(jnp.float32)
    mean = (weights * y).sum(axis=1, keepdims=True)
    variance = (weights * (y - mean) ** 2).sum(axis=1, keepdims=True)
    return mean.astype(x.dtype), jnp.sqrt(jnp.maximum(variance, SMALLEST_VARIANCE)).astype(x.dtype)
