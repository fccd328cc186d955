"""The decoder over packed rows: each conversation as if it were alone, and what remat saves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.config import OmniConfig
from omni_jax.models import attention
from omni_jax.models.audio_encoder import AudioEncoder
from omni_jax.models.decoder import Decoder
from omni_jax.models.vision_encoder import VisionEncoder
from tests import tiny

CONFIG = OmniConfig.from_json(tiny.config("7b")).thinker_config
LENGTHS = ((9, 14, 5), (20, 7))  # of the conversations of two rows; the second row ends in padding
T = 28


@functools.cache
def network(kind, config, scanned=True):
    with nnx.use_eager_sharding(False):
        graphdef, params = nnx.split(kind(nnx.Rngs(0), config, jnp.float32, scanned))
    return graphdef, jax.tree.map(lambda w: w + 0.02 * np.random.default_rng(w.size).normal(size=w.shape), params)


def rows(seed=0):
    """x [2, T, D], positions [3, 2, T] that restart with every conversation, and segments [2, T]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, T, CONFIG.text_config.hidden_size)).astype(np.float32)
    segments, positions = np.zeros((2, T), np.int32), np.zeros((3, 2, T), np.int32)
    for b, start, end, number in conversations():
        segments[b, start:end] = number
        positions[:, b, start:end] = np.arange(end - start) + rng.integers(0, 3, (3, end - start))
    return x, positions, segments


def conversations():
    for b, lengths in enumerate(LENGTHS):
        ends = np.cumsum(lengths)
        yield from ((b, end - n, end, i + 1) for i, (n, end) in enumerate(zip(lengths, ends, strict=True)))


def hidden(params, graphdef, *inputs, **options):
    return nnx.merge(graphdef, params).packed(*inputs, **options)


def weighted(out, start=0):
    """A loss that is not the same for any two numbers of the hidden states."""
    return jnp.sum(jnp.sin(out * (1 + jnp.arange(out.size).reshape(out.shape) % 7 + start)))


@pytest.mark.parametrize("scanned", [True, False])
def test_packed_equals_each_conversation_alone(scanned, monkeypatch):
    monkeypatch.setattr(attention, "CPU_SCORES", 1000)  # in stripes and by head, as long rows are
    graphdef, params = network(Decoder, CONFIG.text_config, scanned)
    x, positions, segments = rows()

    def together(params, x):
        out = hidden(params, graphdef, x, positions, segments)
        return sum(weighted(out[b, start:end]) for b, start, end, _ in conversations()), out

    def alone(params, x):
        outs = [hidden(params, graphdef, x[b:b + 1, start:end], positions[:, b:b + 1, start:end],
                       jnp.ones((1, end - start), jnp.int32))[0] for b, start, end, _ in conversations()]
        return sum(map(weighted, outs)), outs

    run = lambda loss: jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    (_, packed), gradients = run(together)
    (_, unpacked), expected = run(alone)
    for (b, start, end, _), one in zip(conversations(), unpacked, strict=True):
        np.testing.assert_allclose(packed[b, start:end], one, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_packed_equals_the_cached_path():
    graphdef, params = network(Decoder, CONFIG.text_config)
    x, positions, _ = rows(1)
    model = nnx.merge(graphdef, params)
    cached, _ = model(x, positions, np.ones((2, T), bool), model.empty_cache(2, 40))
    np.testing.assert_allclose(model.packed(x, positions, np.ones((2, T), np.int32)), cached, atol=1e-5)


def test_nothing_leaks_between_conversations_or_from_later_tokens():
    graphdef, params = network(Decoder, CONFIG.text_config)
    x, positions, segments = rows()
    reads = jax.jit(lambda x, b, t: jax.grad(lambda x: jnp.sum(
        hidden(params, graphdef, x, positions, segments)[b, t]**2))(x))
    for b, start, end, number in conversations():
        for t in (start, end - 1):
            touched = np.abs(reads(x, b, t)).sum(-1) > 0
            expected = (np.arange(2)[:, None] == b) & (segments == number) & (np.arange(T) <= t)
            np.testing.assert_array_equal(touched, expected)


@pytest.mark.parametrize("B, length, N, K, H", [(2, 64, 6, 2, 10), (1, 72, 4, 4, 8)])
@pytest.mark.parametrize("one_device", [True, False])
def test_long_rows_hold_no_square_of_scores(B, length, N, K, H, one_device, monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((B, length, N, H), (B, K, length, H), (B, K, length, H)))
    segments = np.sort(rng.integers(0, 4, (B, length)), axis=1)
    mask = (segments[:, :, None] == segments[:, None]) & np.tri(length, dtype=bool)
    monkeypatch.setattr(attention, "on_one_device", lambda: one_device)
    loss = lambda attend: jax.jit(jax.value_and_grad(lambda *inputs: weighted(attend(*inputs)), argnums=(0, 1, 2)))
    expected = loss(lambda q, k, v: attention._at_once(q, k, v, mask))(q, k, v)
    for name, size in (("CPU_SCORES", 100), ("MAX_SCORES", 300), ("CPU_ROWS", 8)):
        monkeypatch.setattr(attention, name, size)
    striped = loss(lambda q, k, v: attention.attend_packed(q, k, v, segments)).lower(q, k, v)
    assert f"{length}x{length}x" not in striped.as_text()
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), striped.compile()(q, k, v), expected)


def tower(kind):
    """A function of the tower's parameters and the remat, and the parameters."""
    rng = np.random.default_rng(0)
    if kind == "decoder":
        graphdef, params = network(Decoder, CONFIG.text_config)
        return lambda params, remat: hidden(params, graphdef, *rows(), remat=remat), params
    if kind == "decoder list":
        graphdef, params = network(Decoder, CONFIG.text_config, False)
        return lambda params, remat: hidden(params, graphdef, *rows(), remat=remat), params
    if kind == "audio":
        graphdef, params = network(AudioEncoder, CONFIG.audio_config)
        inputs = rng.normal(size=(2, 200, 128)).astype(np.float32), np.array([200, 113])
    else:
        graphdef, params = network(VisionEncoder, CONFIG.vision_config)
        cells = np.stack(np.meshgrid(np.arange(2), np.arange(16), [0], indexing="ij"), -1).reshape(1, 2, 16, 3)
        inputs = rng.integers(0, 255, (1, 2, 16, 4, 1176), np.uint8), cells.astype(np.int32)
    return lambda params, remat: nnx.merge(graphdef, params)(*inputs, remat=remat), params


@pytest.mark.parametrize("kind", ["decoder", "decoder list", "audio", "vision"])
def test_remat_changes_nothing_but_memory(kind):
    run, params = tower(kind)
    losses, memory = {}, {}
    for remat in ("none", "dots", "full"):
        step = jax.jit(jax.value_and_grad(lambda params, remat=remat: weighted(run(params, remat))))
        compiled = step.lower(params).compile()
        losses[remat], memory[remat] = compiled(params), compiled.memory_analysis().temp_size_in_bytes
    for remat in ("dots", "full"):
        jax.tree.map(lambda ours, plain: np.testing.assert_allclose(ours, plain, atol=1e-5 * np.abs(plain).max()),
                     losses[remat], losses["none"])
    assert memory["full"] <= memory["dots"] < memory["none"], memory
