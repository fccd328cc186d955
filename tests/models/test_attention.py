import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.models import attention


def plain(q, k, v, mask):
    """Attention in float64, a head at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            head = n // (q.shape[2] // k.shape[1])
            scores = q[b, :, n] @ k[b, head].T / np.sqrt(q.shape[-1])
            scores = np.where(np.broadcast_to(mask[b], scores.shape), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, n] = weights / weights.sum(-1, keepdims=True) @ v[b, head]
    return out


@pytest.mark.parametrize("B, T, N, K, S, H, mask_rows", [
    (2, 6, 6, 2, 15, 10, 6), (1, 1, 8, 1, 40, 12, 1), (3, 256, 6, 3, 300, 4, 256), (2, 192, 4, 4, 192, 8, 1),
    (5, 64, 4, 4, 64, 8, 64)])
@pytest.mark.parametrize("how", ["_at_once", "_in_pieces", "_by_head", "attend"])
def test_every_way_gives_the_same(B, T, N, K, S, H, mask_rows, how, monkeypatch):
    monkeypatch.setattr(attention, "MAX_SCORES", 20_000)
    monkeypatch.setattr(attention, "CPU_SCORES", 100)
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, N, H), (B, K, S, H), (B, K, S, H)))
    mask = rng.random((B, mask_rows, S)) < 0.6
    mask[..., 0] = True
    ours = jax.jit(getattr(attention, how))(q, k, v, mask)
    np.testing.assert_allclose(ours, plain(q, k, v, mask), atol=2e-6)


@pytest.mark.parametrize("B, N, K, S, H", [(2, 6, 2, 15, 10), (3, 7, 7, 40, 12), (1, 8, 1, 9, 4)])
def test_a_key_without_a_slot_counts_as_one_with_a_slot(B, N, K, S, H):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(B, 1, N, H)).astype(np.float32)
    k, v = rng.normal(size=(2, B, K, S + 1, H)).astype(np.float32)
    valid = rng.random((B, S)) < 0.6
    valid[0] = False  # an empty cache
    own = [x[:, :, S:].swapaxes(1, 2) for x in (k, v)]
    apart = jax.jit(attention.attend_apart)(q, k[:, :, :S], v[:, :, :S], valid, *own)
    mask = np.concatenate([valid, np.ones((B, 1), bool)], axis=1)[:, None]
    np.testing.assert_allclose(apart, plain(q, k, v, mask), atol=2e-6)


def test_a_query_that_sees_nothing_stays_finite():
    q = jnp.ones((1, 300, 4, 8))
    k = v = jnp.ones((1, 2, 7000, 8))
    assert np.isfinite(attention.attend(q, k, v, jnp.zeros((1, 300, 7000), bool))).all()


def test_gradients_flow_through_the_choice():
    q, k = jnp.ones((1, 512, 4, 8)), jnp.ones((1, 4, 4096, 8))
    grad = jax.grad(lambda q: attention.attend(q, k, k * q[0, 0, 0, 0], jnp.ones((1, 1, 4096), bool)).sum())(q)
    assert float(grad[0, 0, 0, 0]) == pytest.approx(512 * 4 * 8, rel=1e-3)
