"""BigVGAN: mel to waveform (arXiv 2206.04658).

Everything is a convolution of bounded reach, so a clip can be computed in windows whose seams are exact. Only a clip's
true ends matter: there convolutions see zeros and activations see the last value repeated, at every rate.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers

from omni_jax.config import BigVGANConfig
from omni_jax.models.layers import Conv1d, param
from omni_jax.sharding import constrain

LOUDEST_DB, FLOOR_DB = 20.0, -115.0  # the mel's decibels are taken from 20 down, and scaled by the floor
TAPS = 12
HALF = TAPS // 2
# Pi as a sum, of which multiples up to 8,000 of the first two are exact; and the sine's series x + x^3 (… + c x^2 + d),
# fitted to half a turn.
_PI = 3.140625, 9.67502593994140625e-4, 1.509957990978376e-7
_SINE = -2.4080263e-08, 2.7536469e-06, -1.9841087e-04, 8.3333328e-03, -1.6666667e-01


def kaiser_sinc() -> np.ndarray:
    """float32 [TAPS]: the low-pass at half of the band, used before and after every activation; in no checkpoint."""
    attenuation = 2.285 * (HALF - 1) * math.pi * 4 * 0.3 + 7.95  # transition band 0.3
    taps = 0.5 * np.kaiser(TAPS, 0.1102 * (attenuation - 8.7)) * np.sinc(0.5 * (np.arange(-HALF, HALF) + 0.5))
    return (taps / taps.sum()).astype(np.float32)


def normalized(mel: jax.Array) -> jax.Array:
    """Log mel amplitudes -> [-1, 1]: decibels below 20, over 115; quieter than -95 dB is -1."""
    decibels = mel * np.float32(20 / math.log(10)) - LOUDEST_DB
    return jnp.clip(2 * (decibels - FLOOR_DB) / -FLOOR_DB - 1, -1, 1)


def sine_squared(x: jax.Array) -> jax.Array:
    """sin(x)^2 within 3e-7 up to |x| of 20,000. XLA's sine is one number at a time on CPUs, twenty times slower."""
    turns = jnp.round(x * np.float32(1 / np.pi))
    for part in _PI:
        x = x - turns * np.float32(part)
    square = x * x
    series = functools.reduce(lambda sum_, factor: sum_ * square + np.float32(factor), _SINE)
    sine = x + x * square * series
    return sine * sine


class SnakeBeta(nnx.Module):
    """The numbers of x + sin(alpha x)^2 / beta, which are kept as logarithms."""

    def __init__(self, rngs: nnx.Rngs, channels: int, dtype: Any):
        self.alpha = param(rngs, initializers.zeros, (channels,), ("norm",), dtype)
        self.beta = param(rngs, initializers.zeros, (channels,), ("norm",), dtype)


def activations(snakes: Sequence[SnakeBeta], xs: Sequence[jax.Array], end: jax.Array) -> list[jax.Array]:
    """Each snake on its own of xs [B, T, C], between a 2x up-sampling and a 2x down-sampling, which keep it from
    aliasing. end int32 [B]: where each row ends -> [B, T, C] each, zero from there on.

    Both resamplings are polyphase: sums of shifted products over the even and the odd samples of the doubled rate,
    which lie beside one another as 2 C channels. So, and with all snakes at once as rows, XLA's program for a CPU is
    half as large, compiles in half the time and keeps far less in memory. The barriers keep it from computing a sine
    anew for each of the products that it enters, and rows' ends are put in where they are: under a mask of the whole,
    its loops on CPUs are not vectorised (ten times the time).
    """
    K = len(snakes)
    x, end = jnp.stack(xs, 1).reshape(-1, *xs[0].shape[1:]), jnp.repeat(end, K)
    alpha, beta = (jnp.stack([getattr(snake, name)[...] for snake in snakes]) for name in ("alpha", "beta"))
    x = _activated(x, alpha, beta, end)
    return list(jnp.unstack(x.reshape(-1, K, *x.shape[1:]), axis=1))


@jax.jit  # traced once for all layers of the same shapes
def _activated(x: jax.Array, alpha: jax.Array, beta: jax.Array, end: jax.Array) -> jax.Array:
    """x [B * K, T, C], the logarithms alpha and beta [K, C] -> [B * K, T, C]; see `activations`."""
    (rows, T, C), taps = x.shape, kaiser_sinc()
    alpha, beta = (jnp.exp(jnp.tile(logs, (rows // len(logs), 2)))[:, None] for logs in (alpha, beta))
    first, last = x[:, :1], _at(x, end - 1)
    x = jnp.concatenate([_padded(x, first, 3), _padded(x, first, 2)], axis=-1)
    x = _filtered(_ended(x, jnp.tile(last, 2), end + 2), _phases(2 * taps[::-2], 2 * taps[-2::-2]), T)
    x = jax.lax.optimization_barrier(x + _scaled(sine_squared(_scaled(x, alpha)), 1 / (beta + 1e-9)))
    first, last = jnp.tile(x[:, :1, :C], 2), jnp.tile(_at(x, end - 1)[..., C:], 2)
    # An even sample is read one place later than the odd one beside it.
    x = _filtered(_ended(_padded(x, first, 3), last, end + 3), _phases([0, *taps[1::2]], [*taps[0::2], 0]), T)
    return jnp.where((jnp.arange(T) < end[:, None])[..., None], x[..., :C] + x[..., C:], 0)


class AMPBlock(nnx.Module):
    """Three times: activation, dilated convolution, activation, plain convolution, added to the input."""

    def __init__(self, rngs: nnx.Rngs, channels: int, taps: int, dilations: tuple[int, ...], dtype: Any):
        conv = lambda dilation: Conv1d(rngs, channels, channels, taps, 1, dtype, dilation)
        self.convs1 = nnx.List([conv(dilation) for dilation in dilations])
        self.convs2 = nnx.List([conv(1) for _ in dilations])
        self.snakes = nnx.List([SnakeBeta(rngs, channels, dtype) for _ in range(2 * len(dilations))])


def amp(blocks: Sequence[AMPBlock], x: jax.Array, end: jax.Array) -> jax.Array:
    """The mean of the blocks, which are computed side by side. x [B, T, C] -> [B, T, C]"""
    hs = [x] * len(blocks)
    each = lambda convs, xs: [conv(x) for conv, x in zip(convs, xs, strict=True)]
    for i in range(len(blocks[0].convs1)):
        ys = activations([block.snakes[2 * i] for block in blocks], hs, end)
        ys = activations([block.snakes[2 * i + 1] for block in blocks],
                         each([block.convs1[i] for block in blocks], ys), end)
        ys = each([block.convs2[i] for block in blocks], ys)
        hs = [h + y for h, y in zip(hs, ys, strict=True)]
    return sum(hs) / len(blocks)


class UpConv(nnx.Module):
    """Transposed convolution x [B, T, inputs] -> [B, rate * T, outputs]; weight [in, out, taps]."""

    def __init__(self, rngs: nnx.Rngs, inputs: int, outputs: int, taps: int, rate: int, dtype: Any):
        self.rate, self.taps = rate, taps
        self.weight = param(rngs, initializers.normal((inputs * taps / rate) ** -0.5), (inputs, outputs, taps),
                            ("conv_in", "embed", None), dtype)
        self.bias = param(rngs, initializers.zeros, (outputs,), ("norm",), dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """One product gives what each frame adds to the samples around it; then these are added up, shifted by whole
        frames. (A convolution over stuffed zeros multiplies mostly zeros.)"""
        B, T, C = x.shape
        cut, rate = (self.taps - self.rate) // 2, self.rate
        early = -(-cut // rate)  # frames before its own to which a frame adds
        frames = early + -(-(self.taps - cut) // rate)
        parts = (x @ self.weight[...].reshape(C, -1)).reshape(B, T, -1, self.taps)
        pad = early * rate - cut
        parts = jnp.pad(parts, ((0, 0), (0, 0), (0, 0), (pad, frames * rate - pad - self.taps)))
        parts = jnp.pad(parts.reshape(B, T, -1, frames, rate), ((0, 0), (frames, frames), (0, 0), (0, 0), (0, 0)))
        starts = [frames + early - i for i in range(frames)]
        y = sum(parts[:, start:start + T, :, i] for i, start in enumerate(starts))
        return jnp.swapaxes(y, 2, 3).reshape(B, T * rate, -1) + self.bias[...]


class BigVGAN(nnx.Module):
    """Source: Qwen2_5OmniToken2WavBigVGANModel."""

    def __init__(self, rngs: nnx.Rngs, config: BigVGANConfig, dtype: Any):
        self.config = config
        C = config.upsample_initial_channel
        self.first = Conv1d(rngs, config.mel_dim, C, 7, 1, dtype)
        self.ups, self.resblocks = nnx.List([]), nnx.List([])
        for rate, taps in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            C //= 2
            self.ups.append(UpConv(rngs, 2 * C, C, taps, rate, dtype))
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(AMPBlock(rngs, C, size, dilations, dtype))
        self.last_snake = SnakeBeta(rngs, C, dtype)
        self.last = Conv1d(rngs, C, 1, 7, 1, dtype, bias=False)

    def __call__(self, mel: jax.Array, frames: jax.Array) -> jax.Array:
        """mel [B, T, M], of which each row has `frames` (int32 [B], 1 or more) -> [B, T * samples of a frame];
        what lies after a row's end has no meaning."""
        blocks = len(self.config.resblock_kernel_sizes)
        h = jnp.where((jnp.arange(mel.shape[1]) < frames[:, None])[..., None], normalized(mel), 0)
        h, end = self.first(h), frames
        for stage, up in enumerate(self.ups):
            h = up(jnp.where((jnp.arange(h.shape[1]) < end[:, None])[..., None], h, 0))
            h, end = constrain(h, "batch", None, None), end * up.rate
            h = amp(self.resblocks[stage * blocks:(stage + 1) * blocks], h, end)
        return jnp.clip(self.last(*activations([self.last_snake], [h], end)), -1, 1)[..., 0]


def _at(x: jax.Array, place: jax.Array) -> jax.Array:
    """x [B, T, C] at each row's place, int32 [B] -> [B, 1, C]."""
    return jnp.take_along_axis(x, place[:, None, None], axis=1)


def _padded(x: jax.Array, first: jax.Array, ahead: int) -> jax.Array:
    """x [B, T, C] with `first` [B, 1, C] in so many places ahead of it, and zeros behind. [B, T + 3 + HALF, C]"""
    behind = jnp.zeros((len(x), 3 + HALF - ahead, x.shape[2]), x.dtype)
    return jnp.concatenate([first] * ahead + [x, behind], axis=1)


def _ended(x: jax.Array, last: jax.Array, places: jax.Array) -> jax.Array:
    """x [B, T, C] with `last` [B, 1, C] in HALF places from each row's on (int32 [B]): all that filters read there."""
    put = lambda row, value, place: jax.lax.dynamic_update_slice(row, value, (place, 0))
    x = jax.lax.optimization_barrier(x)
    return jax.lax.optimization_barrier(jax.vmap(put)(x, jnp.repeat(last, HALF, axis=1), places))


@jax.custom_vjp
def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x [B, T, C] by a number of each row and channel [B, 1, C]."""
    return x * scale


def _scaled_back(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum over time as a product: as a sum over long columns, CPUs take ten times as long."""
    x, scale = kept
    return dy * scale, jnp.ones((len(x), 1, x.shape[1]), x.dtype) @ (x * dy)


_scaled.defvjp(lambda x, scale: (x * scale, (x, scale)), _scaled_back)

Phases = tuple[tuple[float, float], ...]  # of a filter: for each tap the weight of even and of odd samples


def _phases(even: Sequence[float], odd: Sequence[float]) -> Phases:
    return tuple((float(a), float(b)) for a, b in zip(even, odd, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _filtered(x: jax.Array, taps: Phases, length: int) -> jax.Array:
    """sum over j of taps[j] * x[:, j : j + length], of even | odd channels."""
    weights = np.repeat(np.array(taps, x.dtype), x.shape[-1] // 2, axis=-1)
    return sum(weight * x[:, j:j + length] for j, weight in enumerate(weights))


def _filtered_back(taps: Phases, length: int, width: int, dy: jax.Array) -> tuple[jax.Array]:
    """The same form again: XLA would add up a padded copy for each tap, which takes ten times as long."""
    around = ((0, 0), (len(taps) - 1, width - length), (0, 0))
    return (_filtered(jax.lax.optimization_barrier(jnp.pad(dy, around)), taps[::-1], width),)


_filtered.defvjp(lambda x, taps, length: (_filtered(x, taps, length), x.shape[1]), _filtered_back)
