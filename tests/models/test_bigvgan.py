"""The vocoder beside the reference's, and what its windows rest on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from omni_jax.models import bigvgan
from tests.models.token2wav import TINY, ours, reference, relative


def mel_of(frames, batch=1, bins=14, seed=0):
    """Log mel with loud and silent places: from below the floor of -95 dB to above the ceiling."""
    return np.random.default_rng(seed).normal(-3, 4, (batch, frames, bins)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    graphdef, params = ours(reference(), TINY)
    return nnx.merge(graphdef, params).bigvgan


def expected(mel):
    with torch.no_grad():
        return reference().code2wav_bigvgan_model(torch.tensor(mel).transpose(1, 2)).numpy()


def test_filter_is_the_references():
    theirs = reference().code2wav_bigvgan_model.activation_post
    np.testing.assert_allclose(bigvgan.kaiser_sinc(), theirs.upsample.filter.flatten(), atol=1e-7)
    np.testing.assert_allclose(bigvgan.kaiser_sinc(), theirs.downsample.filter.flatten(), atol=1e-7)


@pytest.mark.parametrize("greatest", [1.6, 200, 20_000])
def test_square_of_the_sine(greatest):
    x = np.linspace(-greatest, greatest, 300_001, dtype=np.float32)
    np.testing.assert_allclose(bigvgan.sine_squared(x), np.sin(x.astype(np.float64)) ** 2, atol=3e-7)
    assert jnp.abs(jax.jit(jax.grad(lambda x: bigvgan.sine_squared(x).sum()))(x) - jnp.sin(2 * x)).max() < 2e-3


@pytest.mark.parametrize("frames", [1, 2, 7, 60])
def test_waveform(model, frames):
    mel = mel_of(frames)
    wave = expected(mel)
    assert np.abs(wave).max() > 0.05 and (np.abs(wave) == 1).mean() < 0.1  # neither silent nor clipped
    assert relative(model(mel, jnp.array([frames]))[0], wave) < 1e-5


def test_padding_is_invisible(model):
    lengths = [1, 13, 40]
    mel = mel_of(50, 3)
    out = model(mel, jnp.array(lengths))
    for row, frames in enumerate(lengths):
        assert relative(out[row, :frames * 30], expected(mel[row:row + 1, :frames])) < 1e-5


def test_beyond_the_context_of_a_window_nothing_is_heard(model):
    """The schedule gives windows 28 frames to each side."""
    mel = mel_of(120)
    at_once, cut = model(mel, jnp.array([120]))[0], slice(28 * 30, -28 * 30)
    window = model(mel[:, 20:100], jnp.array([80]))[0]
    assert relative(window[cut], at_once[20 * 30:100 * 30][cut]) < 1e-6
    assert relative(window[8 * 30:-8 * 30], at_once[28 * 30:92 * 30]) > 1e-6  # else the context is too generous
