"""Dead codes come back, and only they; usage is counted right."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.training import codebook
from omni_jax.training.config import DataConfig, SpeechConfig, TrainConfig

V, E = 13, 3
RUN = TrainConfig("none", DataConfig(()), speech=SpeechConfig(revive=0.5))
revive = jax.jit(codebook.revive, static_argnames="run")


def case(dead=(2, 5, 11), vectors=(0, 4, 7, 9)):
    rng = np.random.default_rng(0)
    params = {codebook.TABLE: rng.normal(size=(V + 2, E)).astype(np.float32), "other": np.ones(2, np.float32)}
    usage = np.where(np.isin(np.arange(V), dead), 0, 1 / (V - len(dead))).astype(np.float32)
    drawn = np.isin(np.arange(V), vectors).astype(np.float32)
    drawn[1] = 2  # two vectors fell together: their sum is none
    seen = {"usage": 100 * usage, "drawn": drawn, "vectors": 10 + rng.normal(size=(V, E)).astype(np.float32)}
    averages = {path: leaf + 100 for path, leaf in params.items()}
    return codebook.Kept(params, averages, {"usage": usage}), seen


@pytest.mark.parametrize("vectors", [(0, 4, 7, 9), (3, 8), ()])
def test_dead_codes_move_to_vectors(vectors):
    kept, seen = case(vectors=vectors)
    params, memory = kept.params, kept.memory
    new, averages, after = revive(kept, seen, jnp.int32(3), run=RUN)
    moved = np.flatnonzero((np.asarray(new[codebook.TABLE]) != params[codebook.TABLE]).any(-1))
    assert set(moved) <= {2, 5, 11} and len(moved) == min(3, len(vectors))
    places = [np.flatnonzero((seen["vectors"] == np.asarray(new[codebook.TABLE])[code]).all(-1)) for code in moved]
    assert len({int(place[0]) for place in places}) == len(moved) and all(int(p[0]) in vectors for p in places)
    np.testing.assert_allclose(np.asarray(after["usage"])[moved], 1 / V)
    np.testing.assert_allclose(np.delete(after["usage"], moved), np.delete(memory["usage"], moved), rtol=1e-5)
    assert (np.asarray(new["other"]) == 1).all() and (np.asarray(averages["other"]) == 101).all()
    table, average = np.asarray(new[codebook.TABLE]), np.asarray(averages[codebook.TABLE])
    np.testing.assert_array_equal(average[moved], table[moved])  # a code's old place is no part of its new one
    np.testing.assert_array_equal(np.delete(average, moved, 0), np.delete(kept.averages[codebook.TABLE], moved, 0))
    without, none, _ = revive(kept._replace(averages={}), seen, jnp.int32(3), run=RUN)
    assert none == {} and np.array_equal(without[codebook.TABLE], table)


def test_which_codes_move_depends_on_step_and_seed():
    kept, seen = case(vectors=(6,))
    moved = lambda step, seed: int(np.flatnonzero((np.asarray(revive(
        kept, seen, jnp.int32(step), run=dataclasses.replace(RUN, seed=seed)).params[codebook.TABLE])
        != kept.params[codebook.TABLE]).any(-1))[0])
    assert moved(3, 0) == moved(3, 0)
    assert len({moved(step, 0) for step in range(12)}) > 1 and len({moved(0, seed) for seed in range(4)}) > 1


def test_a_code_dies_when_it_is_not_used_for_long():
    kept, seen = case()
    params, memory = kept.params, {"usage": jnp.full(V, 1 / V)}
    wanted = int(np.ceil(np.log(0.5) / np.log(codebook.DECAY)))
    for step in range(wanted + 1):
        new, _, memory = revive(kept._replace(memory=memory), seen, jnp.int32(step), run=RUN)
        assert (np.asarray(new[codebook.TABLE])[[2, 5, 11]] != params[codebook.TABLE][[2, 5, 11]]).any() == (
            step == wanted - 1)


def test_samples_add_up_over_batches():
    rng = np.random.default_rng(0)
    z, codes = rng.normal(size=(6, 2, 4, E)).astype(np.float32), rng.integers(0, V, (6, 2, 4))
    exist = np.arange(8).reshape(2, 4) < np.array([8, 3, 0, 1, 8, 5])[:, None, None]
    seeds = rng.integers(0, 2**32, 6, np.uint32)
    count = jax.jit(lambda *inputs: codebook.seen_codes(*inputs, V))
    whole = count(z, codes, exist, seeds)
    parts = [count(*(x[half] for x in (z, codes, exist, seeds))) for half in (slice(0, 3), slice(3, 6))]
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, atol=1e-5), whole, *parts)
    np.testing.assert_array_equal(whole["usage"], np.bincount(codes[exist], minlength=V))
    assert float(whole["drawn"].sum()) == 5 * codebook.SAMPLES  # a row without codes gives none


def test_perplexity():
    usage = np.array([3, 1, 0, 0], np.float32)
    found = codebook.codebook_metrics(usage)
    assert float(found["used_codes"]) == 2
    assert float(found["perplexity"]) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))), rel=1e-6)
    assert float(codebook.codebook_metrics(np.full(V, 2.0))["perplexity"]) == pytest.approx(V, rel=1e-5)
    assert float(codebook.codebook_metrics(usage, least=1.5)["used_codes"]) == 1
