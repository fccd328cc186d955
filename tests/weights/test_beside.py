"""Networks beside a checkpoint: written, found and read back, or refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax import sharding
from omni_jax.config import CodecConfig, CodecEncoderConfig, MelConfig
from omni_jax.errors import OmniError
from omni_jax.models.codec_encoder import CodecEncoder
from omni_jax.weights import beside
from omni_jax.weights.names import leaves

NAME = beside.CODEC
SIZES = CodecConfig(
    CodecEncoderConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, head_dim=4, intermediate_size=14,
                       mel_dim=5, emb_dim=7, block_size=6, repeats=2, look_back=1, look_ahead=0, rope_theta=1e4,
                       rms_norm_eps=1e-6), MelConfig(bins=5))


def abstract_of(sizes):
    abstract = sharding.abstract(CodecEncoder, sizes, sharding.make_mesh(""))[1]
    return dict(leaves(abstract, f"{NAME}/"))


@pytest.fixture(scope="module")
def abstract():
    return abstract_of(SIZES.encoder)


@pytest.fixture(scope="module")
def params(abstract):
    random = np.random.default_rng(0)
    return {path: random.standard_normal(leaf.shape).astype(np.float32) for path, leaf in abstract.items()}


def test_round_trip(tmp_path, params, abstract):
    assert not beside.exists(tmp_path, NAME)
    assert beside.save(tmp_path, {**params, "talker/head/weight": np.zeros(3)}, SIZES) == [NAME]
    assert beside.exists(tmp_path, NAME) and not beside.exists(tmp_path, "speaker_encoder")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.json", f"{NAME}.safetensors"]
    assert beside.load_codec_config(tmp_path) == SIZES
    half = {path: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=leaf.sharding)
            for path, leaf in abstract.items()}
    found = beside.load(tmp_path, NAME, half)
    assert found.keys() == params.keys()
    for path, leaf in params.items():
        assert found[path].dtype == jnp.bfloat16 and found[path].sharding == half[path].sharding
        np.testing.assert_array_equal(found[path], leaf.astype(jnp.bfloat16), err_msg=path)


def test_two_networks_in_place_of_others(tmp_path, params, abstract):
    beside.save(tmp_path, params, SIZES)
    names = beside.save(tmp_path, {**{path: 2 * leaf for path, leaf in params.items()},
                                   "speaker_encoder/first/bias": np.ones(3, np.float32)}, SIZES)
    assert names == [NAME, "speaker_encoder"]
    path = f"{NAME}/norm/scale"
    np.testing.assert_array_equal(beside.load(tmp_path, NAME, abstract)[path], 2 * params[path])


@pytest.mark.parametrize("text, sentence", [
    (json.dumps({"encoder": dataclasses.asdict(SIZES.encoder)}), "mel is missing"),
    (json.dumps(dataclasses.asdict(SIZES) | {"mel": {"bins": 9}}), "mel_dim 5 .* bins 9"),
    ("{", "not valid JSON"), (None, "cannot be read"),
])
def test_bad_sizes(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / f"{NAME}.json").write_text(text)
    with pytest.raises(OmniError, match=f"{NAME}.json.*{sentence}"):
        beside.load_codec_config(tmp_path)


def test_a_failed_write_changes_nothing(tmp_path, params):
    beside.save(tmp_path, params, SIZES)
    before = (tmp_path / f"{NAME}.safetensors").read_bytes()
    broken = {**params, f"{NAME}/output/weight": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
    with pytest.raises(TypeError):
        beside.save(tmp_path, broken, SIZES)
    assert (tmp_path / f"{NAME}.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(OmniError, match="could not be written"):
        beside.save(tmp_path / "nowhere", params, SIZES)


@pytest.mark.parametrize("fields, sentence", [
    ({"intermediate_size": 16}, r"tensor layers.down.weight is misshaped: \[2, 12, 14\] in the file, \[2, 12, 16\]"),
    ({"num_hidden_layers": 3}, "layers.* is misshaped"),
])
def test_what_does_not_fit_is_named(tmp_path, params, fields, sentence):
    beside.save(tmp_path, params, SIZES)
    with pytest.raises(OmniError, match=sentence):
        beside.load(tmp_path, NAME, abstract_of(dataclasses.replace(SIZES.encoder, **fields)))


def test_missing_and_unknown(tmp_path, params, abstract):
    with pytest.raises(OmniError, match="no codec encoder; train one"):
        beside.load(tmp_path, NAME, abstract)
    beside.save(tmp_path, {**params, f"{NAME}/extra": np.zeros(3)}, SIZES)
    with pytest.raises(OmniError, match="tensor extra is unknown"):
        beside.load(tmp_path, NAME, abstract)
    beside.save(tmp_path, {path: leaf for path, leaf in params.items() if "/k/" not in path}, SIZES)
    with pytest.raises(OmniError, match=r"tensor layers\.k\.weight is missing"):
        beside.load(tmp_path, NAME, abstract)
