"""The audio tower: log-mel blocks of 2 seconds to one vector per 40 ms (paper section 2.1).

Everything restarts in each block: convolutions, sinusoid positions and attention. So a clip is a batch of blocks,
and an hour of sound is only a longer batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers

from omni_jax.config import AudioConfig
from omni_jax.models.attention import attend
from omni_jax.models.layers import Conv1d, LayerNorm, Linear, each, gelu, param, stack
from omni_jax.sharding import constrain, media_axis

EPS = 1e-5  # the default of torch's LayerNorm


def sinusoids(length: int, width: int) -> np.ndarray:
    """float32 [length, width]: Whisper's positions, sines in the first half and cosines in the second."""
    scale = np.exp(-np.log(10000.0) / (width // 2 - 1) * np.arange(width // 2, dtype=np.float32)).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * scale
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


class AudioLayer(nnx.Module):
    """Pre-norm attention and MLP of Whisper; `k` has no bias, as there."""

    def __init__(self, rngs: nnx.Rngs, config: AudioConfig, dtype: Any):
        D, N, F = config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim
        heads = lambda bias: Linear(rngs, (D,), (N, D // N), ("heads", "head_dim", "embed"), dtype, bias)
        self.attention_norm = LayerNorm(rngs, D, EPS, dtype)
        self.q, self.k, self.v = heads(True), heads(False), heads(True)
        self.o = Linear(rngs, (D,), (D,), ("embed", ("heads", D // N)), dtype, bias=True)
        self.mlp_norm = LayerNorm(rngs, D, EPS, dtype)
        self.fc1 = Linear(rngs, (D,), (F,), ("mlp", "embed"), dtype, bias=True)
        self.fc2 = Linear(rngs, (F,), (D,), ("embed", "mlp"), dtype, bias=True)

    def __call__(self, x: jax.Array, mask: jax.Array, axis: str) -> jax.Array:
        """x [B, T, D], mask bool [B, 1, T]; axis: see sharding.media_axis."""
        h = self.attention_norm(x)
        q, k, v = (constrain(part(h), axis, None, "heads", None) for part in (self.q, self.k, self.v))
        read = attend(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask, rows=axis)
        read = constrain(read, axis, None, "heads", None).reshape(x.shape)
        x = constrain(x + self.o(read), axis, None, None)
        hidden = constrain(gelu(self.fc1(self.mlp_norm(x))), axis, None, "mlp")
        return constrain(x + self.fc2(hidden), axis, None, None)


class AudioEncoder(nnx.Module):
    """Source: Qwen2_5OmniAudioEncoder."""

    def __init__(self, rngs: nnx.Rngs, config: AudioConfig, dtype: Any, scanned: bool = True):
        self.config = config
        D = config.d_model
        self.conv1 = Conv1d(rngs, config.num_mel_bins, D, 3, 1, dtype)
        self.conv2 = Conv1d(rngs, D, D, 3, 2, dtype)
        self.layers = stack(AudioLayer, rngs, config.encoder_layers, config, dtype, scanned=scanned)
        self.post_norm = LayerNorm(rngs, D, EPS, dtype)
        self.proj = Linear(rngs, (D,), (config.output_dim,), (None, "embed"), dtype, bias=True)
        self.bos_eos = _Unused(rngs, config.output_dim, dtype)

    def __call__(self, mel: jax.Array, frames: jax.Array, remat: str = "none") -> jax.Array:
        """mel [B, 2 * n_window, M] in blocks, zero after the end; frames int32 [B]: real mel frames of each block.

        Returns [B, n_window / 2, D]; block b has ((frames - 1) // 2 + 1) // 2 real vectors, the rest is padding.
        remat: see layers.each.
        """
        dtype, D = self.proj.weight.dtype, self.config.d_model
        axis = media_axis(mel.shape[0] * self.config.n_window, D, self.config.encoder_ffn_dim)
        mel = constrain(mel, axis, None, None)
        real = jnp.arange(mel.shape[1]) < frames[:, None]
        h = gelu(self.conv1(mel.astype(dtype)))
        h = h * real[..., None].astype(dtype)  # the reference masks here only, after the first convolution
        h = gelu(self.conv2(h))
        h = constrain(h + sinusoids(self.config.n_window, D).astype(dtype), axis, None, None)
        mask = (jnp.arange(self.config.n_window) < ((frames - 1) // 2 + 1)[:, None])[:, None]
        h = each(self.layers, self.config.encoder_layers, lambda layer, _, x: layer(x, mask, axis), h, remat)
        h = (h[:, 0::2] + h[:, 1::2]) / 2
        return self.proj(self.post_norm(h))


class _Unused(nnx.Module):
    """`audio_bos_eos_token`: in every checkpoint, read by nobody; kept so that a round trip loses nothing."""

    def __init__(self, rngs: nnx.Rngs, width: int, dtype: Any):
        self.weight = param(rngs, initializers.normal(0.02), (2, width), (None, None), dtype)
