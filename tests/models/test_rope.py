import numpy as np
import pytest

from omni_jax.models import rope


@pytest.mark.parametrize("dims, theta", [(128, 1e6), (64, 1e6), (40, 1e4)])
def test_frequencies_are_the_references_even_far_out(dims, theta):
    torch = pytest.importorskip("torch")
    theirs = 1.0 / (theta ** (torch.arange(0, dims, 2, dtype=torch.float) / dims))
    assert np.abs(rope.inverse_frequencies(dims, theta) - theirs.numpy()).max() * 32768 < 2e-6


def test_sections_follow_time_height_and_width():
    positions = np.array([[[3]], [[50]], [[700]]])
    cos, sin = rope.mrope(positions, (2, 1, 3), 1e4)
    angles = np.repeat([3, 50, 700], (2, 1, 3)) * rope.inverse_frequencies(12, 1e4)
    np.testing.assert_allclose(cos[0, 0], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(sin[0, 0], np.sin(angles), atol=1e-6)


def test_turning_keeps_lengths_and_depends_on_distance_only():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 1, 12)).astype(np.float32)
    scores = []
    for shift in (0, 1000):
        turned = [rope.rotate(x, *rope.mrope(np.full((3, 1, 1), at + shift), (2, 1, 3), 1e4))
                  for x, at in ((q, 7), (k, 2))]
        np.testing.assert_allclose(np.linalg.norm(turned[0]), np.linalg.norm(q), rtol=1e-6)
        scores.append(float((turned[0] * turned[1]).sum()))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
