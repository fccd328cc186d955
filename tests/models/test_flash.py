"""The fused kernels: TPU's in interpret mode, cuDNN's through a stand-in that takes its arguments at their word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import AbstractDevice, AbstractMesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.models import attention, flash, kernels
from omni_jax.models.decoder import Decoder
from tests import tiny
from tests.models.test_attention import plain

BFLOAT16, FLOAT32 = jnp.bfloat16, jnp.float32


@pytest.fixture
def tpu(monkeypatch):
    """As on a TPU, whose kernel is interpreted."""
    monkeypatch.setattr(kernels, "platform", lambda: "tpu")
    monkeypatch.setattr(flash, "flash", functools.partial(flash.flash, interpret=True))


def sample(B, T, N, K, S, H, seed=0):
    """q, k, v and valid marks with holes."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, N, H), (B, K, S, H), (B, K, S, H)))
    valid = rng.random((B, S)) < 0.7
    valid[:, 0] = True
    return q, k, v, valid


def causal_mask(valid, slot, T):
    return valid[:, None] & (np.arange(valid.shape[1]) <= slot + np.arange(T)[:, None])


@pytest.mark.parametrize("B, T, N, K, S, H, slot", [
    (2, 48, 6, 2, 768, 10, 300),     # 3 blocks of queries, 3 of slots, a border inside a block
    (1, 64, 14, 2, 1024, 12, 0),     # 7 query heads a kv head, at the very start
    (3, 16, 4, 4, 1536, 8, 1520),    # the last queries of a full cache
    (1, 32, 8, 1, 512, 16, 511),     # later than some of its own slots
])
def test_flash_equals_plain_attention(B, T, N, K, S, H, slot):
    q, k, v, valid = sample(B, T, N, K, S, H)
    ours = jax.jit(functools.partial(flash.flash, interpret=True))(q, k, v, valid, slot)
    np.testing.assert_allclose(ours, plain(q, k, v, causal_mask(valid, slot, T)), atol=2e-6)


def test_a_query_that_sees_nothing_stays_finite():
    q, k, v, valid = sample(1, 16, 2, 1, 256, 8)
    assert np.isfinite(flash.flash(q, k, v, np.zeros_like(valid), 3, interpret=True)).all()


@pytest.mark.parametrize("T, N, K, S, blocks", [
    (512, 28, 4, 32768, (128, 1024)), (512, 16, 2, 32768, (128, 1024)), (256, 7, 1, 8192, (128, 1024)),
    (512, 28, 4, 1280, (128, 256)), (16384, 16, 16, 16384, (1024, 1024)), (32, 28, 4, 3584, (32, 512)),
    (1, 28, 4, 32768, None), (512, 28, 4, 640, None), (24, 4, 4, 1024, None), (512, 4096, 2, 1024, None)])
def test_blocks_fit_on_the_chip(T, N, K, S, blocks):
    assert flash.blocks(T, N, K, S) == blocks


# On the last mesh neither rows nor kv heads divide: eight devices take 16 queries each.
@pytest.mark.parametrize("spec", ["data=2,fsdp=2,model=2", "fsdp=4,model=2", "data=4,model=2", "model=8"])
@pytest.mark.parametrize("whole", [False, True])
def test_every_device_computes_its_part(spec, whole, tpu):
    q, k, v, valid = sample(4 if "data" in spec else 1, 128, 6, 2, 512, 10)
    mask = valid[:, None] if whole else causal_mask(valid, 200, 128)
    mesh = sharding.make_mesh(spec)
    with jax.set_mesh(mesh):
        assert kernels.choose(q, k, mask, not whole, kernels.split(q, k, "batch")) == "flash"
        causal = None if whole else (jnp.array(valid), jnp.int32(200))
        ours = jax.jit(attention.attend)(q, k, v, mask, causal)
        text = jax.jit(attention.attend).lower(q, k, v, mask, causal).as_text()
    assert "manual_axes" in text
    np.testing.assert_allclose(ours, plain(q, k, v, mask), atol=2e-6)


def test_queries_take_the_axes_that_rows_and_heads_leave():
    q, k = jnp.zeros((1, 64, 6, 8)), jnp.zeros((1, 2, 512, 8))
    for spec, split in [("fsdp=2,model=2", (None, ("fsdp",), "model")), ("model=2", (None, None, "model")),
                        ("model=4", (None, ("model",), None)), ("model=8", (None, None, None))]:
        with jax.set_mesh(sharding.make_mesh(spec)):
            assert kernels.split(q, k, "batch") == split


def test_gradients_of_flash_are_those_of_plain_attention(tpu):
    q, k, v, valid = sample(1, 32, 4, 2, 256, 8)
    mask, causal = causal_mask(valid, 100, 32), (jnp.array(valid), jnp.int32(100))
    loss = lambda attend: jax.grad(lambda q, k, v: jnp.sin(attend(q, k, v)).sum(), argnums=(0, 1, 2))(q, k, v)
    ours = loss(lambda q, k, v: attention.attend(q, k, v, mask, causal))
    expected = loss(lambda q, k, v: attention._at_once(q, k, v, mask))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, expected)


def test_a_decoder_reads_a_padded_prompt_in_chunks_alike(tpu, monkeypatch):
    text = OmniConfig.from_json(tiny.config("7b")).thinker_config.text_config
    with nnx.use_eager_sharding(False):
        decoder = nnx.split(Decoder(nnx.Rngs(0), text, FLOAT32))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 64, text.hidden_size)).astype(np.float32)
    valid = np.arange(64) < np.array([[64], [37]])
    positions = np.broadcast_to(np.arange(64), (3, 2, 64))

    @jax.jit
    def run(x):
        model = nnx.merge(*decoder)
        cache, hidden = model.empty_cache(2, 256), []
        for chunk in (slice(0, 32), slice(32, 64)):
            out, cache = model(x[:, chunk], positions[:, :, chunk], valid[:, chunk], cache)
            hidden.append(out)
        return jnp.concatenate(hidden, axis=1)

    by_kernel = run(x)
    monkeypatch.setattr(kernels, "platform", lambda: "cpu")
    jax.clear_caches()
    np.testing.assert_allclose(by_kernel[valid], run(x)[valid], atol=1e-4)


def on(kind, where):
    return jax.sharding.use_abstract_mesh(AbstractMesh((1, 1, 1), sharding.MESH_AXES, (sharding.AxisType.Auto,) * 3,
                                                       abstract_device=AbstractDevice(kind, None, where)))


TPU, CPU = ("TPU v5 lite", "tpu"), ("cpu", "cpu")
H100, AMD = ("NVIDIA H100 80GB HBM3", "gpu"), ("AMD Instinct MI300X", "gpu")


@pytest.mark.parametrize("device, dtype, T, mask_rows, causal, kernel", [
    (TPU, BFLOAT16, 512, 512, True, "flash"), (TPU, FLOAT32, 512, 512, True, "flash"),
    (TPU, BFLOAT16, 512, 1, False, "flash"), (TPU, BFLOAT16, 512, 512, False, ""), (TPU, BFLOAT16, 1, 1, True, ""),
    (H100, BFLOAT16, 512, 512, True, "cudnn"), (H100, jnp.float16, 64, 64, False, "cudnn"),
    (H100, BFLOAT16, 1, 1, True, "cudnn"), (H100, FLOAT32, 512, 512, True, ""), (AMD, BFLOAT16, 512, 512, True, ""),
    (CPU, BFLOAT16, 512, 512, True, ""), (CPU, FLOAT32, 1, 1, True, "")])
def test_the_platform_of_the_mesh_decides(device, dtype, T, mask_rows, causal, kernel):
    shapes = ((2, T, 6, 16), dtype), ((2, 2, 1024, 16), dtype), ((2, mask_rows, 1024), bool)
    with on(*device):
        q, k, mask = (jax.ShapeDtypeStruct(*shape) for shape in shapes)
        assert kernels.choose(q, k, mask, causal, kernels.split(q, k, "batch")) == kernel


def test_without_a_mesh_the_default_backend_decides():
    assert kernels.platform() == "cpu"


def stand_in(q, k, v, mask=None, *, scale, qkv_layout, q_seqlen, kv_seqlen, mask_type):
    """What cuDNN does, by its documentation."""
    assert qkv_layout == "BNTH" and (mask_type == cudnn.MaskType.PADDING) == (kv_seqlen is not None)
    if mask is None:
        assert (q_seqlen == q.shape[2]).all()
        mask = (jnp.arange(k.shape[2]) < kv_seqlen[:, None])[:, None, None]
    k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = jnp.where(mask, jnp.einsum("bnth,bnsh->bnts", q, k) * scale, -jnp.inf)
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(scores), v)


@pytest.mark.parametrize("spec", ["", "data=2,model=2", "fsdp=2,model=2"])
@pytest.mark.parametrize("T, rows, most", [(64, 64, 1 << 20), (64, 1, 1 << 20), (64, 1, 64), (1, 1, 1)])
def test_cudnn_is_given_the_mask(spec, T, rows, most, monkeypatch):
    monkeypatch.setattr(cudnn, "dot_product_attention", stand_in)
    monkeypatch.setattr(kernels, "MAX_BIAS", most)
    q, k, v, valid = sample(2, T, 6, 2, 96, 8)
    mask = causal_mask(valid, 20, T) if rows > 1 else valid[:, None]
    with jax.set_mesh(sharding.make_mesh(spec)):
        ours = jax.jit(kernels.by_cudnn, static_argnums=4)(q, k, v, mask, kernels.split(q, k, "batch"))
    np.testing.assert_allclose(ours, plain(q, k, v, mask), atol=2e-6)
