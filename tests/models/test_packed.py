"""The decoder over packed rows: each conversation as if it were alone, and what remat saves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.models import attention, kernels
from omni_jax.models.audio_encoder import AudioEncoder
from omni_jax.models.decoder import Decoder
from omni_jax.models.vision_encoder import VisionEncoder
from tests import tiny
from tests.models.test_flash import CPU, H100, TPU, on

CONFIG = OmniConfig.from_json(tiny.config("7b")).thinker_config
LENGTHS = ((9, 14, 9), (23, 7))  # of the conversations of two rows; the second row ends in padding
T = 32


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


def unpacked(x):
    """The conversations of [2, T, ...], one a row of T."""
    return jnp.stack([jnp.pad(x[b, start:end], [(0, T - end + start), *[(0, 0)] * (x.ndim - 2)])
                      for b, start, end, _ in conversations()])


def test_packed_equals_each_conversation_alone(monkeypatch):
    graphdef, params = network(Decoder, CONFIG.text_config)
    x, positions, segments = rows()

    def together(params, x):
        out = unpacked(hidden(params, graphdef, x, positions, segments))
        return weighted(out), out

    def alone(params, x):
        own = jnp.moveaxis(unpacked(jnp.moveaxis(positions, 0, -1)), -1, 0)
        real = unpacked(segments) > 0
        out = hidden(params, graphdef, unpacked(x), own, real.astype(jnp.int32))
        out = jnp.where(real[..., None], out, 0)
        return weighted(out), out

    run = lambda loss: jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    (_, separate), expected = run(alone)
    monkeypatch.setattr(attention, "CPU_SCORES", 1000)  # in stripes and by head, as long rows are
    (_, packed), gradients = run(together)
    np.testing.assert_allclose(packed, separate, atol=1e-5)
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


def sample(B, length, N, K, H):
    """q, k, v, segments and the mask they mean."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((B, length, N, H), (B, K, length, H), (B, K, length, H)))
    segments = np.sort(rng.integers(0, 4, (B, length)), axis=1)
    return q, k, v, segments, (segments[:, :, None] == segments[:, None]) & np.tri(length, dtype=bool)


def gradients(attend):
    """The loss and its gradients, jitted, of q, k and v."""
    return jax.jit(jax.value_and_grad(lambda *inputs: weighted(attend(*inputs)), argnums=(0, 1, 2)))


close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=5e-5))


@pytest.mark.parametrize("one_device", [True, False])
def test_long_rows_hold_no_square_of_scores(one_device, monkeypatch):
    *inputs, segments, mask = sample(2, 64, 6, 2, 10)
    expected = gradients(lambda q, k, v: attention._at_once(q, k, v, mask))(*inputs)
    monkeypatch.setattr(attention, "on_one_device", lambda: one_device)
    for name, size in (("CPU_SCORES", 100), ("MAX_SCORES", 2000), ("CPU_ROWS", 8)):
        monkeypatch.setattr(attention, name, size)
    striped = gradients(lambda q, k, v: attention.attend_packed(q, k, v, segments)).lower(*inputs)
    assert "64x64xf32" not in striped.as_text()
    close(striped.compile()(*inputs), expected)


# On the last mesh one row is not enough for all devices: each takes a part of its queries.
@pytest.mark.parametrize("rows, spec", [(2, "data=2,model=2"), (1, "fsdp=2,model=2")])
def test_splash_attention_is_plain_attention(rows, spec, monkeypatch):
    monkeypatch.setattr(kernels, "platform", lambda: "tpu")
    monkeypatch.setattr(kernels, "LANES", 16)  # narrow heads will do where the kernel is interpreted
    monkeypatch.setattr(kernels, "SPLASH_BLOCK", 128)
    monkeypatch.setattr(kernels, "by_splash", functools.partial(kernels.by_splash, interpret=True))
    *inputs, segments, mask = sample(rows, 256, 6, 2, 16)
    with jax.set_mesh(sharding.make_mesh(spec)):
        ours = gradients(lambda q, k, v: attention.attend_packed(q, k, v, segments)).lower(*inputs)
        close(ours.compile()(*inputs), gradients(lambda q, k, v: attention._at_once(q, k, v, mask))(*inputs))


def cudnn_stand_in(q, k, v, mask, *, scale, qkv_layout, mask_type):
    """What cuDNN does, by its documentation."""
    assert qkv_layout == "BNTH"
    if mask_type == cudnn.MaskType.CAUSAL:
        mask &= np.tri(q.shape[2], k.shape[2], dtype=bool)
    k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = jnp.where(mask, jnp.einsum("bnth,bnsh->bnts", q, k) * scale, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores), v)


@pytest.mark.parametrize("rows, spec", [(2, "data=2,model=2"), (1, "fsdp=2,model=2")])
def test_cudnn_is_given_segments(rows, spec, monkeypatch):
    monkeypatch.setattr(cudnn, "dot_product_attention", cudnn_stand_in)
    *inputs, segments, mask = sample(rows, 64, 6, 2, 16)
    with jax.set_mesh(sharding.make_mesh(spec)):
        split = kernels.split(*inputs[:2], "batch")
        ours = jax.jit(kernels.packed_by_cudnn, static_argnums=4)(*inputs, segments, split)
    np.testing.assert_allclose(ours, attention._at_once(*inputs, mask), atol=2e-6)


@pytest.mark.parametrize("device, dtype, T, H, kernel", [
    (TPU, jnp.bfloat16, 8192, 128, "splash"), (TPU, jnp.float32, 8192, 128, "splash"),
    (TPU, jnp.bfloat16, 8192, 64, ""), (TPU, jnp.bfloat16, 8200, 128, ""), (H100, jnp.bfloat16, 8192, 128, "cudnn"),
    (H100, jnp.float32, 8192, 128, ""), (CPU, jnp.bfloat16, 8192, 128, "")])
def test_the_platform_of_the_mesh_decides(device, dtype, T, H, kernel):
    with on(*device):
        q, k = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((2, T, 28, H), (2, 4, T, H)))
        assert kernels.choose_packed(q, kernels.split(q, k, "batch")) == kernel


def tower(kind):
    """A function of the tower's parameters and the remat, and the parameters."""
    rng = np.random.default_rng(0)
    if kind.startswith("decoder"):
        graphdef, params = network(Decoder, CONFIG.text_config, kind == "decoder")
        return lambda params, remat: hidden(params, graphdef, *rows(), remat=remat), params
    if kind == "audio":
        graphdef, params = network(AudioEncoder, CONFIG.audio_config)
        inputs = rng.normal(size=(2, 200, 128)).astype(np.float32), np.array([200, 113])
    else:
        graphdef, params = network(VisionEncoder, CONFIG.vision_config)
        cells = np.stack(np.meshgrid(np.arange(2), np.arange(16), [0], indexing="ij"), -1).reshape(1, 2, 16, 3)
        inputs = rng.integers(0, 255, (1, 2, 16, 4, 1176), np.uint8), cells.astype(np.int32)
    return lambda params, remat: nnx.merge(graphdef, params)(*inputs, remat=remat), params


@pytest.mark.parametrize("kind, chosen", [
    ("decoder", ("dots", "full")), ("decoder list", ("dots",)), ("audio", ("full",)), ("vision", ("full",))])
def test_remat_changes_nothing_but_memory(kind, chosen):
    run, params = tower(kind)
    losses, memory = {}, {}
    for remat in ("none", *chosen):
        step = jax.jit(jax.value_and_grad(lambda params, remat=remat: weighted(run(params, remat))))
        compiled = step.lower(params).compile()
        losses[remat], memory[remat] = compiled(params), compiled.memory_analysis().temp_size_in_bytes
    for remat in chosen:
        jax.tree.map(lambda ours, plain: np.testing.assert_allclose(ours, plain, atol=1e-5 * np.abs(plain).max()),
                     losses[remat], losses["none"])
    assert sorted(memory, key=memory.get) == ["none", *chosen][::-1], memory
