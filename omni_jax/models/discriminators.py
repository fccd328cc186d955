"""What the vocoder is trained against: networks that tell recorded sound from made sound.

Multi-period discriminators (HiFi-GAN, arXiv 2010.05646, section 2.3) lay every p-th sample side by side;
multi-resolution ones (UnivNet, arXiv 2106.07889, section 2.2, which BigVGAN takes over) look at amplitudes of spectra.
Plain convolutions without weight norm, and sound is zero before its start and after its end, so that padding is
invisible.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from omni_jax.config import DiscriminatorConfig
from omni_jax.models.layers import Conv1d, param
from omni_jax.models.mel import magnitudes

SLOPE = 0.1  # of the leaky rectifier


class Map(NamedTuple):
    """What a layer made of each row: values [B, T, W, C], of which the first `steps` (int32 [B]) of T exist; zero after
    them."""

    values: jax.Array
    steps: jax.Array


class Conv2d(nnx.Module):
    """Convolution over time and frequency of x [B, T, W, inputs]; weight [out, in, time, frequency]. Zeros around it;
    the stride is along time."""

    def __init__(self, rngs: nnx.Rngs, inputs: int, outputs: int, taps: tuple[int, int], stride: int, dtype: Any):
        self.taps, self.stride = taps, stride
        self.weight = param(rngs, initializers.normal((inputs * taps[0] * taps[1]) ** -0.5), (outputs, inputs, *taps),
                            ("embed", "conv_in", None, None), dtype)
        self.bias = param(rngs, initializers.zeros, (outputs,), ("norm",), dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        pads = [(taps // 2, taps // 2) for taps in self.taps]
        return jax.lax.conv_general_dilated(x, self.weight[...], (self.stride, 1), pads,
                                            dimension_numbers=("NHWC", "OIHW", "NHWC")) + self.bias[...]


class PeriodDiscriminator(nnx.Module):
    """Convolutions over every p-th sample, each of the p columns by itself."""

    def __init__(self, rngs: nnx.Rngs, config: DiscriminatorConfig, period: int, dtype: Any):
        widths = (1, *config.period_channels)
        last = len(widths) - 2
        self.period = period
        self.convs = nnx.List([Conv1d(rngs, widths[i], widths[i + 1], 5, 1 if i == last else 3, dtype)
                               for i in range(last + 1)])
        self.score = Conv1d(rngs, widths[-1], 1, 3, 1, dtype)

    def __call__(self, wave: jax.Array, samples: jax.Array) -> list[Map]:
        """wave [B, S], of which each row has `samples`, and zeros after them -> the layers' maps (W is the period),
        the scores last."""
        B, p = len(wave), self.period
        x = jnp.pad(wave, ((0, 0), (0, -wave.shape[1] % p))).reshape(B, -1, p, 1)
        x = x.astype(self.score.weight.dtype)
        columns = lambda conv: lambda x: jnp.moveaxis(
            conv(jnp.moveaxis(x, 2, 1).reshape(B * p, x.shape[1], -1)).reshape(B, p, -1, conv.weight.shape[0]), 1, 2)
        return _maps([(columns(conv), conv.stride) for conv in (*self.convs, self.score)], x, -(-samples // p))


class SpectralDiscriminator(nnx.Module):
    """Convolutions over the amplitudes of spectra of one resolution."""

    def __init__(self, rngs: nnx.Rngs, config: DiscriminatorConfig, resolution: tuple[int, int, int], dtype: Any):
        C = config.spectral_channels
        self.resolution = resolution
        layers = [(1, C, (9, 3), 1), *[(C, C, (9, 3), 2)] * 3, (C, C, (3, 3), 1)]
        self.convs = nnx.List([Conv2d(rngs, *layer, dtype) for layer in layers])
        self.score = Conv2d(rngs, C, 1, (3, 3), 1, dtype)

    def __call__(self, wave: jax.Array, samples: jax.Array) -> list[Map]:
        """As PeriodDiscriminator; W is the number of frequencies."""
        n_fft, hop, window = self.resolution
        before, after = (window - hop) // 2, window
        spectra = magnitudes(jnp.pad(wave, ((0, 0), (before, after))), n_fft, hop, window)
        frames = -(-wave.shape[1] // hop)
        x = spectra[:, :frames, :, None].astype(self.score.weight.dtype)
        return _maps([(conv, conv.stride) for conv in (*self.convs, self.score)], x, -(-samples // hop))


class Discriminators(nnx.Module):
    """All of them."""

    def __init__(self, config: DiscriminatorConfig, rngs: nnx.Rngs, dtype: Any):
        self.periods = nnx.List([PeriodDiscriminator(rngs, config, period, dtype) for period in config.periods])
        self.spectra = nnx.List([SpectralDiscriminator(rngs, config, resolution, dtype)
                                 for resolution in config.resolutions])

    def __call__(self, wave: jax.Array, samples: jax.Array) -> list[list[Map]]:
        """wave [B, S], of which each row has `samples` (int32 [B]) -> each discriminator's maps, its scores last (C is
        1: near 1 where the sound seems recorded, near 0 where it seems made)."""
        wave = jnp.where(jnp.arange(wave.shape[1]) < samples[:, None], wave, 0)
        return [judge(wave, samples) for judge in (*self.periods, *self.spectra)]


def _maps(layers: list, x: jax.Array, steps: jax.Array) -> list[Map]:
    """The maps of layers (function, stride) one after the other, x [B, T, W, C] having `steps` that exist. All but the
    last are rectified."""
    maps: list[Map] = []
    x = _cut(x, steps)
    for i, (layer, stride) in enumerate(layers):
        steps = -(-steps // stride)
        x = layer(x)
        x = _cut(x if i == len(layers) - 1 else jax.nn.leaky_relu(x, SLOPE), steps)
        maps.append(Map(x, steps))
    return maps


def _cut(x: jax.Array, steps: jax.Array) -> jax.Array:
    return jnp.where((jnp.arange(x.shape[1]) < steps[:, None])[..., None, None], x, 0)
