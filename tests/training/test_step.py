"""The train step: what must make no difference makes none, and what is frozen stays."""

import dataclasses

import jax
import numpy as np
import pytest

from omni_jax import OmniError, sharding
from omni_jax.data.processor import Processor
from omni_jax.training import setup as setups
from omni_jax.training.config import LoraConfig, OptimizerConfig
from omni_jax.training.feed import put
from omni_jax.training.optimizer import decays, make_optimizer, schedule
from omni_jax.training.packing import to_batch
from omni_jax.training.step import make_eval_step
from tests.test_sharding import SPLITS, name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow, joined

STEPS = 20
FAST_SPLIT = (2, 2, 2)


@pytest.fixture(scope="module")
def given(run):
    return batches(run, 3) * 7  # the same three again and again: the losses fall


@pytest.fixture(scope="module")
def alone(run, given):
    return follow(run, given[:STEPS])


@pytest.fixture(scope="module")
def steady(run):
    """Updates in proportion to the gradient: plain Adam would blow up the rounding of gradients near zero."""
    return changed(run, optimizer=OptimizerConfig(learning_rate=0.05, schedule="constant", eps=1.0))


def close(losses, others, tolerance=1e-5):
    np.testing.assert_allclose(losses, others, rtol=tolerance)


def test_it_learns(alone):
    losses = alone[0]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("split, steps", [(FAST_SPLIT, 3), *(pytest.param(s, STEPS, marks=pytest.mark.slow)
                                                             for s in SPLITS)])
def test_every_mesh_split_gives_the_same_losses(steady, given, split, steps):
    alone = follow(steady, given[:steps])
    losses, params, _ = follow(changed(steady, mesh=name(split)), given[:steps])
    close(losses, alone[0])
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, alone[1][path], atol=1e-5, err_msg=path)


def test_accumulated_equals_one_large_batch(steady):
    parted = batches(changed(steady, accumulate=2), 2)
    losses, params, _ = follow(changed(steady, accumulate=2), parted)
    others, other_params, _ = follow(steady, list(map(joined, parted)))
    close(losses, others)
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, other_params[path], atol=1e-6, err_msg=path)


@pytest.mark.parametrize("remat", ["dots", pytest.param("full", marks=pytest.mark.slow)])
def test_remat_changes_nothing_but_memory(run, given, alone, remat):
    run = changed(run, remat=remat)
    close(follow(run, given[:2])[0], alone[0][:2], 1e-6)


def test_packed_equals_unpacked(run):
    setup = setups.prepare(run)
    processor: Processor = setup.processor
    asks = ([{"type": "image", "image": np.full((50, 60, 3), 90, np.uint8)}, "Which?"],
            [{"type": "audio", "audio": np.sin(np.arange(9000) / 9).astype(np.float32)}], "Hello.")
    examples = [processor.example([{"role": "user", "content": ask}, {"role": "assistant", "content": f"It is {i}."}])
                for i, ask in enumerate(asks)]
    length = sum(len(example.learn) for example in examples) + 5

    def sums(rows):
        batch = jax.tree.map(lambda x: x[None], to_batch(rows, length, setup.plan.config, run.data.media))
        with jax.set_mesh(setup.mesh):
            state, frozen = setups.load(setup)
            return make_eval_step(setup.plan)(state.params, frozen, put(batch, setup.mesh))

    packed, apart = sums([examples]), sums([[example] for example in examples])
    assert packed["weight"] == apart["weight"] == sum(example.learn.sum() for example in examples)
    close(packed["loss"], apart["loss"])


def test_what_is_frozen_stays_and_the_rest_learns(run, given):
    chosen = ("thinker/audio/proj/*", "thinker/vision/merger/*")
    run = changed(run, train=chosen)
    setup = setups.prepare(run)
    assert set(setup.abstract.params) == {p for p in setup.abstract.params if "/proj/" in p or "/merger/" in p}
    before, _ = setups.load(setup)
    before = jax.tree.map(np.asarray, before.params)
    frozen_before = jax.tree.map(np.asarray, setups.load_frozen(setup))
    losses, params, frozen = follow(run, given[:4])
    assert losses[-1] < losses[0]
    assert all(np.array_equal(frozen[path], leaf) for path, leaf in frozen_before.items())
    assert all(not np.array_equal(params[path], leaf) for path, leaf in before.items())


def test_adapters_learn_alone(run, given):
    run = changed(run, lora=LoraConfig(rank=4, alpha=8.0))
    losses, params, frozen = follow(run, given[:4])
    assert all(path.endswith(("/lora/a", "/lora/b")) for path in params) and "thinker/embed/weight" in frozen
    assert losses[-1] < losses[0]


def test_a_pattern_that_fits_nothing(run):
    with pytest.raises(OmniError, match=r"no parameter fits 'thinker/audoi/\*'; there are, among others, thinker/"):
        setups.prepare(changed(run, train=("thinker/audoi/*",)))


def test_schedules():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, schedule="linear", end=0.25)
    rate = schedule(config, 12)
    np.testing.assert_allclose([rate(0), rate(3), rate(4), rate(8), rate(12)], [0.5, 2, 2, 1.25, 0.5])
    cosine = schedule(dataclasses.replace(config, schedule="cosine", warmup_steps=0), 10)
    np.testing.assert_allclose([cosine(0), cosine(5), cosine(10)], [2, 1.25, 0.5])
    assert schedule(dataclasses.replace(config, schedule="constant"), 12)(11) == 2


def test_one_step_of_adamw_by_hand():
    """The first step of Adam moves by the sign of the gradient; decay and rates act as the configuration says."""
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5, clip_norm=0.0, eps=1e-12,
                             rates=(("b/*", 0.5),))
    optimizer = make_optimizer(config, 10)
    params = {"a/weight": np.array([2.0], np.float32), "a/bias": np.array([2.0], np.float32),
              "b/weight": np.array([2.0], np.float32)}
    grads = {path: np.array([-3.0], np.float32) for path in params}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose([updates[p][0] for p in ("a/weight", "a/bias", "b/weight")],
                               [0.1 * (1 - 0.5 * 2), 0.1, 0.05 * (1 - 0.5 * 2)], atol=1e-6)
    assert decays("x/lora/a") and not decays("x/scale")


def test_moments_lie_where_their_parameters_do(run):
    setup = setups.prepare(changed(run, mesh="data=2,fsdp=2,model=2"))
    moments = setup.abstract.optimizer[1].mu
    assert {p: leaf.sharding for p, leaf in moments.items()} == {p: leaf.sharding
                                                               for p, leaf in setup.abstract.params.items()}
    specs = [leaf.sharding.spec for leaf in setup.abstract.params.values()]
    assert sum("fsdp" in str(spec) for spec in specs) > 20 and setup.mesh.axis_names == sharding.MESH_AXES
