"""The vocoder's judges beside the published structure in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from omni_jax import sharding
from omni_jax.config import DiscriminatorConfig
from omni_jax.errors import OmniError
from omni_jax.models.discriminators import SLOPE, Discriminators
from tests.models.token2wav import relative

CONFIG = DiscriminatorConfig(periods=(2, 5), period_channels=(3, 4, 6), resolutions=((64, 10, 28), (32, 7, 32)),
                             spectral_channels=5)


@pytest.fixture(scope="module")
def model():
    graphdef, params = sharding.abstract(Discriminators, CONFIG, sharding.make_mesh(""))
    random = np.random.default_rng(0)
    draw = lambda leaf: jnp.float32(random.standard_normal(leaf.shape) * max(np.prod(leaf.shape[1:]), 25) ** -0.5)
    return nnx.merge(graphdef, jax.tree.map(draw, params))


@pytest.fixture(scope="module")
def judges(model):
    graphdef, params = nnx.split(model)
    return jax.jit(lambda wave, samples: nnx.merge(graphdef, params)(wave, samples))


def wave_of(rows, samples, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, samples)).astype(np.float32)


def convolved(x, layers, two_d):
    """[B, C, H, W] through torch's convolutions, rectified but for the last: all of them, as [B, time, W, C]."""
    maps = []
    for i, layer in enumerate(layers):
        weight, bias = (torch.tensor(np.asarray(leaf[...])) for leaf in (layer.weight, layer.bias))
        weight = weight if two_d else weight[..., None]
        pad = weight.shape[2] // 2, weight.shape[3] // 2
        x = torch.nn.functional.conv2d(x, weight, bias, (layer.stride, 1), pad)
        x = x if i == len(layers) - 1 else torch.nn.functional.leaky_relu(x, SLOPE)
        maps.append(x.permute(0, 2, 3, 1).numpy())
    return maps


def test_maps_are_the_published_structures(model, judges):
    samples = 210  # a multiple of the periods and hops: published code mirrors the sound there
    wave = wave_of(2, samples)
    found = judges(wave, jnp.full(2, samples))
    theirs = [convolved(torch.tensor(wave).reshape(2, 1, -1, judge.period), [*judge.convs, judge.score], False)
              for judge in model.periods]
    for judge in model.spectra:
        n_fft, hop, window = judge.resolution
        before = (window - hop) // 2 + (n_fft - window) // 2  # torch puts a short window amid n_fft samples
        padded = torch.nn.functional.pad(torch.tensor(wave), (before, n_fft))
        spectra = torch.stft(padded, n_fft, hop, window, torch.hann_window(window), center=False, return_complex=True)
        frames = spectra.abs()[:, None, :, :samples // hop].transpose(2, 3)
        theirs.append(convolved(frames, [*judge.convs, judge.score], True))
    for ours, want in zip(found, theirs, strict=True):
        assert [relative(map_.values, values) < 1e-4 for map_, values in zip(ours, want, strict=True)].count(False) == 0


def test_padding_is_invisible(judges):
    samples, wave = 71, wave_of(2, 210)
    judged = judges(wave, jnp.array([133, samples]))
    alone = judges(wave[1:, :samples], jnp.array([samples]))
    for padded, short in zip(jax.tree.leaves(judged), jax.tree.leaves(alone), strict=True):
        if short.ndim == 1:
            assert padded[1] == short[0]
        else:
            assert relative(padded[1:, :short.shape[1]], short) < 1e-5
            assert not np.any(padded[1, short.shape[1]:])


def test_default_sizes_are_the_published():
    _, params = sharding.abstract(Discriminators, DiscriminatorConfig(), sharding.make_mesh(""))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(params["periods"]) == 5 * 8_218_433  # HiFi-GAN's 41.1 million, without the gains of weight norm
    assert count(params["spectra"]) == 3 * 93_473


@pytest.mark.parametrize("fields", [{"periods": ()}, {"resolutions": ((64, 30, 28),)}, {"period_channels": (8,)}])
def test_bad_settings(fields):
    with pytest.raises(OmniError, match="discriminators"):
        DiscriminatorConfig(**fields)
