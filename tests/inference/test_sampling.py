import math
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.inference import sampling
from omni_jax.inference.sampling import Sampling

V = 97


def kept(settings: Sampling, logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The processed logits over the whole vocabulary, -inf where a token cannot be drawn."""
    sampler, numbers = settings.sampler, settings.numbers
    scores = sampling.penalize(logits, seen, numbers[2]) if sampler.penalizes else logits
    values, ids = sampling.candidates(sampler, numbers, jnp.asarray(scores))
    out = np.full(logits.shape, -np.inf, np.float32)
    np.put_along_axis(out, np.asarray(ids), np.asarray(values), axis=-1)
    return out


@pytest.mark.parametrize("settings", [
    Sampling(0.7), Sampling(1.0, top_k=12), Sampling(1.3, top_p=0.8), Sampling(0.9, top_p=0.8, top_k=40),
    Sampling(0.9, top_p=0.8, top_k=40, repetition_penalty=1.05), Sampling(1.0, top_p=1e-6), Sampling(2.0, top_k=500),
], ids=str)
def test_equals_the_references_logits_processors(settings):
    torch = pytest.importorskip("torch")
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as reference

    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (5, V)).astype(np.float32)
    prompt = rng.integers(0, V, (5, 30))
    seen = np.zeros((5, V), bool)
    np.put_along_axis(seen, prompt, True, axis=-1)
    chain = LogitsProcessorList()
    if settings.repetition_penalty != 1:
        chain.append(reference.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    chain.append(reference.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        chain.append(reference.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        chain.append(reference.TopPLogitsWarper(settings.top_p))
    theirs = chain(torch.tensor(prompt), torch.tensor(logits)).numpy()
    np.testing.assert_allclose(kept(settings, logits, seen), theirs, rtol=1e-6)


def draw(settings: Sampling, logits: np.ndarray, seeds: list[int], step: int) -> np.ndarray:
    seen = jnp.zeros(logits.shape, bool)
    return np.asarray(sampling.choose(settings.sampler, settings.numbers, jnp.asarray(logits), seen,
                                      jnp.array(seeds, jnp.uint32), jnp.int32(step)))


@pytest.mark.parametrize("settings", [Sampling(1.0), Sampling(0.8, top_p=0.9, top_k=9), Sampling(1.0, top_p=0.7)],
                         ids=str)
def test_a_draw_depends_on_seed_and_step_only(settings):
    logits = np.tile(np.random.default_rng(0).normal(0, 1, V).astype(np.float32), (4, 1))
    batch = draw(settings, logits, [5, 6, 5, 7], 3)
    assert batch[0] == batch[2] == draw(settings, logits[:1], [5], 3)[0]
    many = [draw(settings, logits[:1], [seed], step)[0] for seed in range(8) for step in range(8)]
    assert len(set(many)) > 5


def test_draws_follow_the_distribution():
    settings = Sampling(0.5, top_k=3)
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4, 1e-9], np.float32))
    draws = np.concatenate([draw(settings, np.tile(logits, (2000, 1)), list(range(2000)), step) for step in range(5)])
    weights = np.array([0, 0.2, 0.3, 0.4, 0]) ** 2
    np.testing.assert_allclose(np.bincount(draws, minlength=5) / len(draws), weights / weights.sum(), atol=0.02)


def test_greedy_takes_the_best_after_the_penalty():
    settings = Sampling(repetition_penalty=2.0)
    logits, seen = jnp.array([[3.0, 2.0, -1.0]]), jnp.array([[True, False, False]])
    chosen = sampling.choose(settings.sampler, settings.numbers, logits, seen, jnp.zeros(1, jnp.uint32), jnp.int32(0))
    assert chosen[0] == 1


@pytest.mark.parametrize("name, values", [
    ("temperature", [-0.1, "1", None, math.nan, math.inf, 1e39, 10**400, True, [1], np.ones(2)]),
    ("top_p", [0.0, 1.1, "0.9", b"1", math.nan, 1e-60]), ("top_k", [-1, 2.5, math.inf, "5", True, None]),
    ("repetition_penalty", [0.0, -1, "x", math.inf, 1e-60, {}]),
], ids=["temperature", "top_p", "top_k", "repetition_penalty"])
def test_bad_settings_are_named(name, values):
    for value in values:
        with pytest.raises(OmniError, match=f"^{name} is {re.escape(repr(value))[:50]}.*; it must be a [^.]*$"):
            Sampling(**{name: value})


def test_numbers_of_any_kind_are_settings():
    settings = Sampling(np.float32(0.5), Fraction(1, 2), np.int64(3), 2)
    assert settings.sampler == sampling.Sampler(True, 3, True, True)
    assert isinstance(settings.numbers, np.ndarray) and settings.numbers.dtype == np.float32
    assert settings.numbers.tolist() == [0.5, 0.5, 2.0]


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-7, 1e-300])
def test_a_temperature_next_to_nothing_is_greedy(temperature):
    assert Sampling(temperature, top_p=0.5, top_k=7).sampler == sampling.Sampler(False, 0, False, False)
    assert Sampling(1e-6).sampler.draws


@pytest.mark.parametrize("seed", [5, np.int64(5), np.array(5), [5], (5,), np.array([5], np.uint8), jnp.array([5])],
                         ids=repr)
def test_one_seed_is_for_all_rows(seed):
    seeds = sampling.row_seeds(seed, 3)
    assert seeds.dtype == np.uint32 and seeds.tolist() == [5, 5, 5]


def test_a_seed_a_row():
    for seed in ([0, 7, 2**32 - 1], np.array([0, 7, 2**32 - 1]), (0, 7, np.uint32(2**32 - 1))):
        assert sampling.row_seeds(seed, 3).tolist() == [0, 7, 2**32 - 1]
    assert sampling.row_seeds(range(3), 3).tolist() == [0, 1, 2]
    with pytest.raises(OmniError, match="seed has 2 entries for 3 conversations; give one, or one each"):
        sampling.row_seeds([1, 2], 3)


def test_new_numbers_compile_nothing():
    compiled = jax.jit(sampling.choose, static_argnums=0)
    logits, seen, seeds = jnp.ones((1, V)), jnp.zeros((1, V), bool), jnp.zeros(1, jnp.uint32)
    for settings in (Sampling(0.5, 0.9, 10), Sampling(0.9, 0.5, 10)):
        compiled(settings.sampler, settings.numbers, logits, seen, seeds, jnp.int32(0))
    assert compiled._cache_size() == 1
