"""Export: transformers loads it and answers the same; import then export gives the same bytes."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedModel,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights import (
    find_speakers,
    load_huggingface,
    params_tensors,
    read_directory,
    save_huggingface,
    write_speakers,
)
from omni_jax.weights.random_init import random_speakers
from tests.tiny import config as tiny_config
from tests.weights.checkpoints import abstract, omni_config, write_checkpoint
from tools.convert import main as convert


def equal_bytes(left, right) -> None:
    left, right = read_directory(left), read_directory(right)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert (tensor.dtype, tensor.shape) == (right[name].dtype, right[name].shape)
        assert tensor.load().tobytes() == right[name].load().tobytes(), name


def loaded(kind, directory, **options):
    # Not kind.from_pretrained: the whole model's own form of it cannot return the report.
    model, report = PreTrainedModel.from_pretrained.__func__(kind, directory, output_loading_info=True, **options)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def logits(thinker, vocabulary=250):
    with torch.no_grad():
        return thinker(input_ids=torch.arange(3, 3 + 17)[None] * 7 % vocabulary).logits.float().numpy()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", ["7b", "3b"])
def test_import_then_export_is_bit_equal(tmp_path, kind, dtype):
    config = omni_config(kind)
    write_checkpoint(tmp_path / "a", config, dtype)
    params = load_huggingface(tmp_path / "a", config, abstract(config, dtype=dtype))
    save_huggingface(tmp_path / "b", config, params_tensors(params, config), max_shard_size=33_333)
    equal_bytes(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("kind", ["7b", "3b"])
def test_transformers_loads_a_thinker_alone(tmp_path, kind):
    torch.manual_seed(0)
    config = Qwen2_5OmniThinkerConfig(**tiny_config(kind)["thinker_config"])
    reference = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    reference.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    config = OmniConfig.load(tmp_path / "theirs")
    params = load_huggingface(tmp_path / "theirs", config, abstract(config))
    save_huggingface(tmp_path / "ours", config, params_tensors(params, config), companions=tmp_path / "theirs")
    again = loaded(Qwen2_5OmniThinkerForConditionalGeneration, tmp_path / "ours", dtype=torch.float32)
    np.testing.assert_array_equal(logits(again), logits(reference))


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory):
    """A tiny model with all its networks, as transformers saves it, with voices."""
    directory = tmp_path_factory.mktemp("whole") / "theirs"
    torch.manual_seed(1)
    config = Qwen2_5OmniConfig(**tiny_config("7b", speech=True))
    Qwen2_5OmniForConditionalGeneration(config).eval().save_pretrained(directory, max_shard_size="300KB")
    write_speakers(directory / "spk_dict.pt", random_speakers(omni_config()))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    return directory


def test_whole_model_there_and_back(tmp_path, whole_model):
    first = convert([str(whole_model), str(tmp_path / "store")])
    second = convert([str(tmp_path / "store"), str(tmp_path / "back"), "--max-shard-size", "250KB"])
    assert first["tensors"] == second["tensors"] > 100
    originals = loaded(Qwen2_5OmniForConditionalGeneration, whole_model, dtype=torch.float32)
    loaded(Qwen2_5OmniForConditionalGeneration, tmp_path / "back", dtype=torch.float32)
    again = Qwen2_5OmniForConditionalGeneration.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    assert again.state_dict().keys() == originals.state_dict().keys()
    for name, tensor in originals.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    np.testing.assert_array_equal(logits(again.thinker), logits(originals.thinker))
    assert again.speaker_map.keys() == {"Chelsie", "Ethan"}
    assert (tmp_path / "back" / "merges.txt").is_file()


def test_shards_are_small_and_indexed(tmp_path, config):
    names = save_huggingface(tmp_path / "c", config, read_directory(write_checkpoint(tmp_path / "a", config)).values(),
                             max_shard_size=40_000)
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == names
    assert sorted(path.name for path in (tmp_path / "c").glob("model-*")) == names
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in read_directory(tmp_path / "c").values())
    for name in names:
        held = [t for t in read_directory(tmp_path / "c").values() if t.file == name]
        assert len(held) == 1 or sum(t.nbytes for t in held) <= 40_000


def test_existing_directory_is_refused_and_failure_leaves_nothing(tmp_path, config):
    tensors = list(read_directory(write_checkpoint(tmp_path / "a", config)).values())
    with pytest.raises(OmniError, match="exists already"):
        save_huggingface(tmp_path / "a", config, tensors)

    def fail(directory):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_huggingface(tmp_path / "b", config, tensors, write_companions=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_speakers_of_a_directory(tmp_path, config):
    assert find_speakers(tmp_path) == {}
    assert set(find_speakers(write_checkpoint(tmp_path / "a", config))) == {"Chelsie", "Ethan"}
