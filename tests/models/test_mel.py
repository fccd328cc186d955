"""Mels against librosa's."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from omni_jax.errors import OmniError
from omni_jax.models.mel import log_mel
from omni_jax.speech_config import MelConfig


@pytest.mark.parametrize("config", [MelConfig(), MelConfig(n_fft=156, hop=30, bins=17, low=60.0, high=9000.0)])
def test_log_mel_equals_librosas(config):
    frames = 23
    wave = np.random.default_rng(0).standard_normal((2, frames * config.hop + 2 * config.pad)).astype(np.float32) * 0.1
    wave[1, wave.shape[1] // 2:] *= 1e-3  # down to the floor
    want = librosa.feature.melspectrogram(
        y=wave, sr=config.sample_rate, n_fft=config.n_fft, hop_length=config.hop, center=False, power=1.0,
        n_mels=config.bins, fmin=config.low, fmax=config.high)
    got = jax.jit(log_mel, static_argnums=1)(wave, config)
    assert got.shape == (2, frames, config.bins)
    np.testing.assert_allclose(got, np.log(np.maximum(want, config.floor)).swapaxes(1, 2), atol=1e-4)


def test_gradient_of_silence_is_finite():
    config = MelConfig(n_fft=156, hop=30, bins=17, floor=1e-9)
    slope = jax.grad(lambda wave: log_mel(wave, config).sum())(jnp.zeros((1, 90 + 2 * config.pad)))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("fields", [{"hop": 241}, {"high": 12001.0}, {"floor": 0.0}])
def test_bad_settings(fields):
    with pytest.raises(OmniError, match="mel"):
        MelConfig(**fields)
