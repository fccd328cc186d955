"""The codec encoder: what a code depends on, windows of long clips, and the nearest rows of a table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.config import CodecEncoderConfig
from omni_jax.errors import OmniError
from omni_jax.models import codec_encoder
from omni_jax.models.codec_encoder import CodecEncoder, nearest

CONFIG = CodecEncoderConfig(hidden_size=20, num_hidden_layers=2, num_attention_heads=3, head_dim=8,
                            intermediate_size=28, mel_dim=5, emb_dim=11, block_size=6, repeats=2, look_back=2,
                            look_ahead=1, rope_theta=10000.0, rms_norm_eps=1e-6)
T, C, M = CONFIG.block_size, CONFIG.codes_per_block, CONFIG.mel_dim


@functools.cache
def network() -> CodecEncoder:
    with nnx.use_eager_sharding(False):
        return CodecEncoder(CONFIG, nnx.Rngs(0), jnp.float32)


@functools.cache
def encode():
    """(mel, frames, begin) -> z, jitted."""
    model = network()
    return jax.jit(lambda mel, frames, begin: model(mel, frames, begin))


def draw(*shape, seed=0):
    return 3 * np.random.default_rng(seed).normal(size=shape).astype(np.float32) - 5


def whole(mel, frames=None, begin=0):
    """z [B, codes, E] of mel [B, n, T, M]."""
    B, n, _, _ = mel.shape
    ends = np.full(B, n * T if frames is None else frames, np.int32)
    return np.asarray(encode()(mel, ends, np.full(B, begin, np.int32))).reshape(B, n * C, -1)


def test_a_code_sees_its_window_and_nothing_else():
    assert CONFIG.reach == (4, 2)
    model = network()
    gradient = jax.jit(jax.grad(lambda mel: model(mel, jnp.array([9 * T]))[0, 5, 1].sum()),
                       compiler_options={"xla_backend_optimization_level": 0})
    seen = gradient(draw(1, 9, T, M))
    assert np.flatnonzero(np.abs(seen[0]).max(axis=(1, 2))).tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("frames", [1, 6, 17, 20])
def test_padding_is_invisible(frames):
    """An odd clip ends inside a code, whose second frame is then padding."""
    mel = draw(2, 4, T, M)
    other = mel.copy().reshape(2, -1, M)
    other[:, frames:] = 99
    z, codes = whole(mel, frames), -(-frames // CONFIG.repeats)
    np.testing.assert_array_equal(z[:, :codes], whole(other.reshape(mel.shape), frames)[:, :codes])
    assert np.abs(z - whole(mel)).max() > 1e-3  # and what exists is seen
    np.testing.assert_allclose(z[:1], whole(mel[:1], frames), atol=1e-5)
    shifted = np.concatenate([draw(2, 1, T, M, seed=1), mel], axis=1)
    np.testing.assert_allclose(z[:, :codes], whole(shifted, T + frames, T)[:, C:C + codes], atol=2e-6)


@pytest.mark.parametrize("frames", [1, 18, 55, 108])
def test_windows_have_exact_seams(frames):
    mel = draw(frames, M)
    padded = np.pad(mel, ((0, 18 * T - frames), (0, 0))).reshape(1, 18, T, M)
    expected, shapes = whole(padded, frames)[0], encode()._cache_size()
    for number, sizes in enumerate(((3,), (1, 3)), 1):
        z = codec_encoder.in_windows(encode(), CONFIG, mel, sizes)
        assert z.shape == (-(-frames // CONFIG.repeats), CONFIG.emb_dim) and encode()._cache_size() <= shapes + number
        np.testing.assert_allclose(z, expected[:len(z)], atol=2e-6)


def test_nearest_rows_of_a_table():
    rng = np.random.default_rng(0)
    table, z = rng.normal(size=(37, 11)).astype(np.float32), rng.normal(size=(2, 3, 4, 11)).astype(np.float32)
    exact = ((z[..., None, :].astype(np.float64) - table) ** 2).sum(-1)
    np.testing.assert_allclose(codec_encoder.distances(z, table), exact, rtol=1e-5)
    np.testing.assert_array_equal(nearest(z, table), exact.argmin(-1))
    np.testing.assert_array_equal(nearest(table + 1e-3, table), np.arange(37))
    np.testing.assert_allclose(network().scores(z, table), -exact / 11, rtol=1e-5)


def test_bad_configurations_are_named():
    fields = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    for field, value in {"head_dim": 7, "repeats": 4, "look_ahead": -1}.items():
        with pytest.raises(OmniError, match=field):
            CodecEncoderConfig(**{**fields, field: value})
