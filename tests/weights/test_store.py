"""Our own directory: restored to the same parameters, refused when damaged or of another model."""

import json
import re
import shutil

import numpy as np
import pytest

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights import (
    is_store,
    load_huggingface,
    match_params,
    params_tensors,
    read_directory,
    restore,
    save_store,
)
from omni_jax.weights.names import leaves
from omni_jax.weights.store import INDEX
from tests.weights.checkpoints import abstract, assert_trees_equal, copy, is_one_sentence, omni_config


@pytest.fixture
def damaged(tmp_path, store):
    return copy(store, tmp_path / "damaged")


def refusal(directory, config) -> str:
    with pytest.raises(OmniError) as caught:
        restore(directory, config, abstract(config))
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_restores_what_import_gives(store, original, config, dtype):
    assert is_store(store) and not is_store(original)
    wanted = abstract(config, dtype=dtype)
    assert_trees_equal(restore(store, config, wanted), load_huggingface(original, config, wanted))


@pytest.mark.parametrize("text, ours", [
    ('{"dim": 4096}', False), ("", False), ("[1]", False), ('{"format": "other"}', False),
    ('{"format":"omni_jax","version":99}', True), ('{\n "format": "omni_jax",\n "vers', True)])
def test_not_every_params_json_is_ours(tmp_path, text, ours):
    """A damaged index of ours still is: what is wrong with it is told when it is read."""
    (tmp_path / INDEX).write_text(text)
    assert is_store(tmp_path) is ours


def test_params_stored_and_restored(tmp_path, original, config):
    wanted = abstract(config, dtype="bfloat16")
    params = load_huggingface(original, config, wanted)
    save_store(tmp_path / "s", config, match_params(params, config))
    assert OmniConfig.load(tmp_path / "s") == config
    assert_trees_equal(restore(tmp_path / "s", config, wanted), params)


def test_a_layer_per_group(store, config):
    groups = {path.name for path in (store / "params").iterdir()}
    assert {"thinker.decoder.layers.00", "thinker.decoder.layers.02", "thinker.embed", "thinker.audio.layers.01",
            "talker.decoder.layers.04", "talker.codec_head", "token2wav.dit.layers.05",
            "token2wav.dit.codec_embed"} <= groups


def test_missing_group(damaged, config):
    shutil.rmtree(damaged / "params" / "thinker.decoder.layers.01")
    assert "thinker.decoder.layers.01: is missing" in refusal(damaged, config)


def test_truncated_group(damaged, config):
    group = damaged / "params" / "thinker.vision.layers.03"
    for path in (path for path in group.rglob("*") if path.is_file() and path.parent.name == "d"):
        path.write_bytes(path.read_bytes()[:40])
    assert "thinker.vision.layers.03: is damaged" in refusal(damaged, config)


def test_groups_swapped(damaged, config):
    params = damaged / "params"
    (params / "thinker.audio.layers.01").rename(params / "aside")
    (params / "thinker.vision.layers.01").rename(params / "thinker.audio.layers.01")
    (params / "aside").rename(params / "thinker.vision.layers.01")
    assert "thinker.audio.layers.01" in refusal(damaged, config)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "omni_jax", "version": 2, "tensors": [{}]}',
                                  '{"format": "omni_jax", "version": 99, "tensors": []}'])
def test_bad_index(damaged, config, text):
    (damaged / INDEX).write_text(text)
    assert INDEX in refusal(damaged, config)


def edit(directory, change) -> None:
    data = json.loads((directory / INDEX).read_text())
    change(data["tensors"])
    (directory / INDEX).write_text(json.dumps(data))


def test_missing_tensor(damaged, config):
    edit(damaged, lambda tensors: tensors.pop(0))
    assert "thinker.model.embed_tokens.weight is missing" in refusal(damaged, config)


def test_unknown_tensor(damaged, config):
    edit(damaged, lambda tensors: tensors.append({**tensors[0], "name": "thinker.more.weight"}))
    assert "thinker.more.weight is unknown" in refusal(damaged, config)


def test_group_outside_the_directory(damaged, config):
    edit(damaged, lambda tensors: tensors[0].update(group="../../elsewhere"))
    assert "refused" in refusal(damaged, config)


@pytest.mark.parametrize(("field", "value"), [("intermediate_size", 160), ("num_hidden_layers", 2)])
def test_contradicting_config(store, field, value):
    assert field in refusal(store, omni_config(speech=True, **{field: value})) or field == "num_hidden_layers"


def test_layers_apart_equal_stacked_ones(store, original, config):
    """The tree whose layers are a list, from both kinds of directory and back to tensors."""
    apart = abstract(config, scanned=False)
    stacked, tensors = dict(leaves(load_huggingface(original, config, abstract(config)))), read_directory(original)
    for params in (load_huggingface(original, config, apart), restore(store, config, apart)):
        for path, leaf in leaves(params):
            layer = re.search(r"/layers/(\d+)/", path)
            whole = stacked[path.replace(f"/{layer[1]}/", "/")][int(layer[1])] if layer else stacked[path]
            np.testing.assert_array_equal(leaf, whole)
        for tensor in params_tensors(params, config):
            np.testing.assert_array_equal(tensor.load(), tensors[tensor.name].load())
