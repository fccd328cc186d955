"""Networks beside a checkpoint: written, found and read back, or refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import sharding
from omni_jax.config import DiscriminatorConfig, MelConfig
from omni_jax.errors import OmniError
from omni_jax.models.discriminators import Discriminators
from omni_jax.weights.beside import find_beside, read_beside, read_beside_config, write_beside
from omni_jax.weights.names import leaves

NAME = "codec_encoder"
SIZES = DiscriminatorConfig(periods=(3,), period_channels=(4, 7), resolutions=((32, 8, 24),), spectral_channels=3)


@pytest.fixture(scope="module")
def abstract():
    return sharding.abstract(Discriminators, SIZES, sharding.make_mesh(""))[1]


@pytest.fixture(scope="module")
def params(abstract):
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), abstract)


def test_round_trip(tmp_path, params, abstract):
    assert find_beside(tmp_path) == []
    write_beside(tmp_path, NAME, params, MelConfig(bins=17))
    assert find_beside(tmp_path) == [NAME]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.json", f"{NAME}.safetensors"]
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=leaf.sharding), abstract)
    found = read_beside(tmp_path, NAME, half)
    for (path, ours), (_, leaf), wanted in zip(leaves(found), leaves(params), jax.tree.leaves(half), strict=True):
        assert ours.dtype == jnp.bfloat16 and ours.sharding == wanted.sharding
        np.testing.assert_array_equal(ours, leaf.astype(jnp.bfloat16), err_msg=path)
    assert read_beside(tmp_path, NAME, abstract).keys() == params.keys()


def test_sizes(tmp_path, params):
    write_beside(tmp_path, NAME, params, MelConfig(bins=17, low=20.0))
    assert read_beside_config(tmp_path, NAME, MelConfig) == MelConfig(bins=17, low=20.0)
    (tmp_path / f"{NAME}.json").write_text(json.dumps({"bins": "many"}))
    with pytest.raises(OmniError, match=f"{NAME}.json.*bins"):
        read_beside_config(tmp_path, NAME, MelConfig)
    (tmp_path / f"{NAME}.json").unlink()
    with pytest.raises(OmniError, match=f"{NAME}.json.*cannot be read"):
        read_beside_config(tmp_path, NAME, MelConfig)


def test_a_failed_write_changes_nothing(tmp_path, params, abstract):
    write_beside(tmp_path, NAME, params)
    before = (tmp_path / f"{NAME}.safetensors").read_bytes()
    with pytest.raises(TypeError):
        write_beside(tmp_path, NAME, jax.tree.map(lambda leaf: leaf * 2, params), config="no dataclass")
    assert (tmp_path / f"{NAME}.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.safetensors"]
    with pytest.raises(OmniError, match="could not be written"):
        write_beside(tmp_path / "nowhere", NAME, params)


@pytest.mark.parametrize("sizes, sentence", [
    (dataclasses.replace(SIZES, period_channels=(4, 9)), r"tensor periods.0.convs.1.\w+ is misshaped: \["),
    (dataclasses.replace(SIZES, periods=(3, 5)), r"6 tensors are missing \(periods.1.convs"),
    (dataclasses.replace(SIZES, period_channels=(4, 7, 1)), r"2 tensors are missing \(periods.0.convs.2.bias"),
    (dataclasses.replace(SIZES, resolutions=SIZES.resolutions * 2), "missing.*spectra.1"),
])
def test_what_does_not_fit_is_named(tmp_path, params, sizes, sentence):
    write_beside(tmp_path, NAME, params)
    with pytest.raises(OmniError, match=sentence):
        read_beside(tmp_path, NAME, sharding.abstract(Discriminators, sizes, sharding.make_mesh(""))[1])


def test_unknown_tensors_and_missing_files(tmp_path, params, abstract):
    with pytest.raises(OmniError, match="no codec encoder; train one"):
        read_beside(tmp_path, NAME, abstract)
    write_beside(tmp_path, NAME, {**params, "extra": np.zeros(3)})
    with pytest.raises(OmniError, match="tensor extra is unknown"):
        read_beside(tmp_path, NAME, abstract)
