"""Muon: which parameters it steps, how far, and that meshes and restarts change nothing."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax import OmniError, sharding
from omni_jax.training import setup as setups
from omni_jax.training.checkpoints import read_trained
from omni_jax.training.config import OptimizerConfig
from omni_jax.training.loop import train
from omni_jax.training.optimizer import make_optimizer, matrix_axes, state_shardings
from tests.training.conftest import changed
from tests.training.test_loop import computed

SHAPES = {"decoder/layers/q/weight": (2, 4, 8, 24), "decoder/layers/down/weight": (2, 24, 40), "proj/weight": (24, 16),
          "decoder/layers/q/bias": (2, 4, 8), "embed/weight": (64, 24), "conv1/weight": (24, 16, 3),
          "decoder/norm/scale": (24,), "other/proj/weight": (24, 16)}
MATRICES = [path for path in SHAPES if matrix_axes(path, SHAPES[path]) and not path.startswith("other")]
CONFIG = OptimizerConfig(learning_rate=0.01, schedule="constant", clip_norm=0.0, muon=("[!o]*",), muon_rate=3.0)


def draw(seed):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def updates(config, params, grads):
    optimizer = make_optimizer(config, 10)
    return jax.jit(lambda p, g: optimizer.update(g, optimizer.init(p), p)[0])(params, grads)


def test_layers_apart_and_stacked_are_the_same_maps():
    assert matrix_axes("decoder/layers/q/weight", (2, 4, 8, 24)) == ((3,), (1, 2))
    assert matrix_axes("decoder/layers/1/q/weight", (4, 8, 24)) is None  # ambiguous: training stacks its layers
    assert matrix_axes("decoder/layers/1/down/weight", (24, 40)) == matrix_axes("proj/weight", (24, 40)) == ((1,), (0,))


def test_matrices_step_orthogonally_and_the_others_as_before():
    assert len(MATRICES) == 3
    stepped = updates(CONFIG, draw(0), draw(1))
    plain = updates(OptimizerConfig(learning_rate=0.01, schedule="constant", clip_norm=0.0), draw(0), draw(1))
    for path, update in stepped.items():
        if path not in MATRICES:
            np.testing.assert_array_equal(update, plain[path], err_msg=path)
            continue
        maps = np.asarray(update).reshape(2 if "layers" in path else 1, -1, update.shape[-1])
        size = 0.01 * 3.0 * 0.2 * max(maps.shape[1:]) ** 0.5
        singular = np.linalg.svd(maps, compute_uv=False) / size
        assert singular.min() > 0.6 and singular.max() < 1.3, path
        aligned = -(maps * draw(1)[path].reshape(maps.shape)).sum()  # down the gradient
        assert aligned > 0.5 * size * np.linalg.svd(draw(1)[path].reshape(maps.shape), compute_uv=False).sum(), path


def test_a_mesh_changes_nothing():
    mesh = sharding.make_mesh("data=2,fsdp=2,model=2")
    spec = lambda path: PartitionSpec("fsdp") if path == "proj/weight" else PartitionSpec(None, "model")
    parts = {path: NamedSharding(mesh, spec(path) if path in MATRICES else PartitionSpec()) for path in SHAPES}
    apart = lambda tree: {path: jax.device_put(leaf, parts[path]) for path, leaf in tree.items()}
    alone, split = updates(CONFIG, draw(0), draw(1)), updates(CONFIG, apart(draw(0)), apart(draw(1)))
    for path, update in alone.items():
        np.testing.assert_allclose(split[path], update, atol=1e-6, err_msg=path)
    abstract = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
                for path, leaf in apart(draw(0)).items()}
    optimizer, replicated = make_optimizer(CONFIG, 10), NamedSharding(mesh, PartitionSpec())
    laid = jax.tree.leaves(state_shardings(optimizer, abstract, replicated))
    assert laid.count(parts["proj/weight"]) == 1 and laid.count(parts["decoder/layers/q/weight"]) == 2  # momentum alone


def test_patterns_that_fit_nothing(run):
    with pytest.raises(OmniError, match=r"optimizer.muon: no parameter fits 'thinkers/\*'"):
        setups.prepare(changed(run, optimizer=OptimizerConfig(muon=("thinkers/*",))))


@pytest.mark.slow
def test_a_run_in_two_parts_is_one_run(run, tmp_path):
    run = changed(run, steps=4, optimizer=OptimizerConfig(learning_rate=1e-3, muon=("thinker/*",), muon_rate=5.0))
    train(run, tmp_path / "whole")
    train(run, tmp_path / "parts", until=2)
    train(run, tmp_path / "parts")
    losses = [line["loss"] for line in computed(tmp_path / "whole")]
    assert losses == [line["loss"] for line in computed(tmp_path / "parts")] and losses[-1] < losses[0]
    ours, theirs = (read_trained(tmp_path / part)[2] for part in ("parts", "whole"))
    assert all(np.array_equal(ours[path], leaf) for path, leaf in theirs.items())
