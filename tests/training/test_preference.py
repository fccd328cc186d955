"""Direct preference optimization beside the published formula, computed apart in float64."""

import jax
import numpy as np

from omni_jax.training.preference import preference_loss

PAIRS = np.array([[True, True, False], [True, False, False]])


def published(policy, reference, beta):
    """Equation 7 of arXiv 2305.18290, a pair at a time; and its gradient by the policy's log-likelihoods."""
    loss, gradient = 0.0, np.zeros_like(policy)
    for b, i in zip(*np.nonzero(PAIRS), strict=True):
        better, worse = 2 * i, 2 * i + 1
        ratio = lambda u, b=b: policy[b, u] - reference[b, u]
        h = beta * ratio(better) - beta * ratio(worse)
        loss += np.log1p(np.exp(-h))
        slope = -beta / (1 + np.exp(h))
        gradient[b, better], gradient[b, worse] = slope, -slope
    return loss, gradient


def test_loss_and_gradient_are_the_published_ones():
    rng = np.random.default_rng(0)
    policy, reference = rng.normal(-200, 15, (2, 2, 6))
    for beta in (0.05, 0.3):
        loss, gradient = published(policy, reference, beta)
        ours = jax.value_and_grad(lambda p, beta=beta: preference_loss(p, p - reference, PAIRS, beta)["loss"])
        value, slopes = ours(policy.astype(np.float32))
        np.testing.assert_allclose(value, loss, rtol=1e-5)
        np.testing.assert_allclose(slopes, gradient, rtol=1e-4, atol=1e-7)


def test_what_is_told_of_the_pairs():
    policy = np.array([[-5, -9, -9, -5, 0, 0], [-1, -2, 0, 0, 0, 0]], np.float32)
    told = preference_loss(policy, policy, PAIRS, 0.5)
    assert told["weight"] == 3 and told["preferred"] == 2
    np.testing.assert_allclose(told["margin"], 0.5 * (4 - 4 + 1))
    np.testing.assert_allclose(told["better_log_likelihood"], -5 - 9 - 1)
