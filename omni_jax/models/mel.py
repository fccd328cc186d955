"""Sound to the mels of Token2Wav, inside jitted functions and with gradients."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from omni_jax.config import MelConfig

QUIET = 1e-12  # keeps the slope of the square root at zero power finite; far below any floor


def log_mel(wave: jax.Array, config: MelConfig) -> jax.Array:
    """wave [B, frames * hop + 2 * pad], with a frame's neighbours on each side (see MelConfig.pad) -> float32
    [B, frames, M]: natural logarithms of mel amplitudes, as BigVGAN's `mel_spectrogram`."""
    size = magnitudes(wave, config.n_fft, config.hop)
    mel = jnp.einsum("btf,fm->btm", size, _filters(config), precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(mel, config.floor))


def magnitudes(wave: jax.Array, n_fft: int, hop: int, window: int | None = None) -> jax.Array:
    """wave [B, samples] -> float32 [B, (samples - window) // hop + 1, n_fft // 2 + 1]: amplitudes of the spectra of
    frames under a Hann window (of n_fft, unless it is shorter), the first of which starts at the first sample."""
    window = window or n_fft
    parts = jnp.einsum("btn,nf->btf", frames_of(wave.astype(jnp.float32), window, hop), _transform(n_fft, window),
                       precision=jax.lax.Precision.HIGHEST)
    real, imaginary = jnp.split(parts, 2, axis=-1)
    return jnp.sqrt(real**2 + imaginary**2 + QUIET)


def frames_of(wave: jax.Array, length: int, hop: int) -> jax.Array:
    """wave [B, samples] -> [B, (samples - length) // hop + 1, length]: a frame each `hop`. Made of slices, whose
    gradient is a sum and not a scatter."""
    B, samples = wave.shape
    frames, rows = (samples - length) // hop + 1, -(-length // hop)
    wave = jnp.pad(wave, ((0, 0), (0, hop * rows)))[:, :(frames + rows - 1) * hop].reshape(B, -1, hop)
    return jnp.concatenate([wave[:, row:row + frames] for row in range(rows)], axis=-1)[..., :length]


@functools.lru_cache(maxsize=16)
def _transform(n_fft: int, window: int) -> np.ndarray:
    """float32 [window, 2 * (n_fft // 2 + 1)]: cosines and sines of the real Fourier transform of `window` samples under
    a periodic Hann window, as if zeros made them n_fft."""
    time = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / window)
    angle = 2 * np.pi / n_fft * (time[:, None] * np.arange(n_fft // 2 + 1) % n_fft)
    return np.concatenate([hann[:, None] * np.cos(angle), -hann[:, None] * np.sin(angle)], axis=1).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _filters(config: MelConfig) -> np.ndarray:
    """float32 [n_fft // 2 + 1, M]: Slaney's mel bands, each of unit area."""
    return librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.bins, fmin=config.low,
                               fmax=config.high).T
