"""Strict import: what must be refused, and what is read."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights import load_huggingface, read_directory
from omni_jax.weights.names import leaves
from tests.weights.checkpoints import (
    abstract,
    assert_trees_equal,
    is_one_sentence,
    nested_name,
    omni_config,
    rewrite,
    write_checkpoint,
)

Q = "thinker.model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch, request):
    """In the tests of refusals, reading a tensor is a failure: all checks come first."""
    if "refused" in request.node.name:
        def read(*arguments):
            raise AssertionError("a tensor was read")
        monkeypatch.setattr("omni_jax.weights.importer._read_shard", read)


def refusal(directory, config) -> str:
    with pytest.raises(OmniError) as caught:
        load_huggingface(directory, config, abstract(config))
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def test_missing_refused(broken, config):
    rewrite(broken, lambda arrays: arrays.pop(Q))
    assert f"tensor {Q} is missing" in refusal(broken, config)


def test_many_missing_refused_with_a_count(broken, config):
    rewrite(broken, lambda arrays: [arrays.pop(name) for name in list(arrays) if "thinker.model.layers.1.mlp" in name])
    message = refusal(broken, config)
    assert "3 tensors are missing" in message and "thinker.model.layers.1.mlp.gate_proj.weight" in message


@pytest.mark.parametrize("name", ["thinker.model.layers.1.self_attn.q_norm.weight", "speaker_encoder.weight",
                                  "model.norm.weight", "thinker.model.layers.01.mlp.up_proj.weight"])
def test_unknown_refused(broken, config, name):
    rewrite(broken, lambda arrays: arrays.update({name: np.zeros(3, np.float32)}))
    assert f"tensor {name} is unknown" in refusal(broken, config)


def test_doubled_in_both_schemes_refused(broken, config):
    rewrite(broken, lambda arrays: arrays.update({nested_name(Q): arrays[Q]}))
    message = refusal(broken, config)
    assert "doubled" in message and Q in message and nested_name(Q) in message


def test_misshaped_refused(broken, config):
    # The transposed matrix has as many elements, so a count alone would let it pass.
    name = "thinker.model.layers.2.self_attn.k_proj.weight"
    rewrite(broken, lambda arrays: arrays.update({name: np.ascontiguousarray(arrays[name].T)}))
    message = refusal(broken, config)
    assert f"tensor {name} is misshaped" in message and "[120, 40]" in message and "[40, 120]" in message
    assert "num_key_value_heads" in message


def test_integer_weights_refused(broken, config):
    rewrite(broken, lambda arrays: arrays.update({Q: arrays[Q].astype(np.int8)}))
    assert f"{Q} is int8" in refusal(broken, config)


@pytest.mark.parametrize(("field", "value", "word"), [
    ("intermediate_size", 160, "intermediate_size"), ("num_hidden_layers", 4, "num_hidden_layers 4"),
    ("num_hidden_layers", 2, "num_hidden_layers 2"), ("vocab_size", 500, "vocab_size"),
    ("num_key_value_heads", 3, "num_key_value_heads"), ("tie_word_embeddings", True, "tie_word_embeddings"),
])  # fmt: skip
def test_contradicting_config_refused(original, field, value, word):
    assert word in refusal(original, omni_config(speech=True, **{field: value}))


@pytest.mark.parametrize(("field", "value"), [("intermediate_size", 140), ("num_hidden_layers", 6), ("vocab_size", 400),
                                              ("num_key_value_heads", 1)])  # fmt: skip
def test_contradicting_talker_refused(original, config, field, value):
    data = config.to_json()
    data["talker_config"][field] = value
    message = refusal(original, OmniConfig.from_json(data))
    assert "talker." in message and (field in message or field == "num_hidden_layers")


def test_values_are_the_files(original, config):
    params = dict(leaves(load_huggingface(original, config, abstract(config))))
    tensors = read_directory(original)
    text = config.thinker_config.text_config
    for layer in range(text.num_hidden_layers):
        for name, shape in (("q", (text.num_attention_heads, text.head_dim, -1)), ("o", (text.hidden_size, -1))):
            theirs = tensors[f"thinker.model.layers.{layer}.self_attn.{name}_proj.weight"].load()
            np.testing.assert_array_equal(params[f"thinker/decoder/layers/{name}/weight"][layer], theirs.reshape(shape))
    theirs = tensors["thinker.visual.patch_embed.proj.weight"].load()
    np.testing.assert_array_equal(params["thinker/vision/patch_embed/weight"], theirs.reshape(len(theirs), -1))


def test_nested_names_load_the_same(broken, original, config):
    rewrite(broken, lambda arrays: [arrays.update({nested_name(name): arrays.pop(name)})
                                    for name in list(arrays) if name.startswith("thinker.")])
    assert any(".language_model." in name for name in read_directory(broken))
    tree = abstract(config)
    assert_trees_equal(load_huggingface(broken, config, tree), load_huggingface(original, config, tree))


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_types_are_converted_on_the_way(tmp_path, stored, wanted):
    config = omni_config("3b", whole=False, tie_word_embeddings=True)
    write_checkpoint(tmp_path / "c", config, stored)
    params = load_huggingface(tmp_path / "c", OmniConfig.load(tmp_path / "c"), abstract(config, dtype=wanted))
    theirs = read_directory(tmp_path / "c")["model.embed_tokens.weight"].load()
    assert theirs.dtype.name == stored and all(leaf.dtype == wanted for _, leaf in leaves(params))
    ours = params["thinker"]["embed"]["weight"]
    np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))


def test_without_speech_no_speech_tensor_is_read(original, config, monkeypatch):
    from omni_jax.weights import importer

    networks, read, whole = [], importer._read_shard, abstract(config)
    monkeypatch.setattr(importer, "_read_shard",
                        lambda row, *rest: networks.append(row.section.network) or read(row, *rest))
    params = load_huggingface(original, config, {"thinker": whole["thinker"]})
    assert params.keys() == set(networks) == {"thinker"}
    assert_trees_equal(params["thinker"], load_huggingface(original, config, whole)["thinker"])


@pytest.mark.parametrize("change", [{"enable_audio_output": False}, {"talker_config": None, "token2wav_config": None}])
def test_speech_that_config_does_not_describe_refused(original, config, change):
    message = refusal(original, OmniConfig.from_json({**config.to_json(), **change}))
    assert "talker.model.embed_tokens.weight" in message and "enable_audio_output" in message


SHARDED = """
import sys
import jax
from omni_jax.config import OmniConfig
from omni_jax.weights import importer, load_params
from omni_jax.weights.names import leaves
from tests.weights.checkpoints import abstract, assert_trees_equal

path, kind = sys.argv[1:]
config = OmniConfig.load(path)
single = load_params(path, config, abstract(config, "model=1"))
largest, read = [0], importer._read_shard
def watched(*arguments):
    out = read(*arguments)
    largest[0] = max(largest[0], out.size)
    return out
importer._read_shard = watched
for mesh in ("data=1,fsdp=2,model=4", "fsdp=4,model=2", "data=2,model=3"):
    wanted = abstract(config, mesh, "float32")
    params = load_params(path, config, wanted)
    for (_, leaf), (_, target) in zip(leaves(params), leaves(wanted)):
        assert leaf.sharding == target.sharding, (leaf.sharding, target.sharding)
        if kind == "huggingface" and mesh.startswith("fsdp=4") and leaf.size > 1e5:
            assert largest[0] < leaf.size
    assert_trees_equal(params, single)
assert any(len(set(map(str, leaf.sharding.devices_indices_map(leaf.shape).values()))) > 1 for _, leaf in leaves(params))
print("equal on", jax.device_count())
"""


@pytest.mark.parametrize("kind", ["huggingface", "store"])
def test_sharded_equals_single(original, store, kind):
    """On eight virtual devices; with heads that no axis divides, the split falls on head_dim inside a file's axis."""
    path = original if kind == "huggingface" else store
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", SHARDED, str(path), kind], env=environment, capture_output=True,
                          text=True, check=False)
    assert done.stdout.strip() == "equal on 8", done.stderr


def test_each_shard_is_read_once(original, config, monkeypatch):
    from omni_jax.weights import importer

    calls = []
    read = importer._read_shard
    monkeypatch.setattr(importer, "_read_shard", lambda row, *rest: calls.append(row.path) or read(row, *rest))
    params = load_huggingface(original, config, abstract(config))
    assert len(calls) == len(jax.tree.leaves(params)) == len(set(calls))
