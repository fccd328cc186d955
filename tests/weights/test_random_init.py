"""Random checkpoints: the same for a seed, loadable by both sides, with text that varies."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2Tokenizer,
)

from omni_jax.config import OmniConfig
from omni_jax.data.tokenizer import Tokenizer
from omni_jax.errors import OmniError
from omni_jax.weights import read_directory
from omni_jax.weights.random_text import special_tokens
from tests.tiny import config as tiny_config
from tests.weights.checkpoints import omni_config
from tests.weights.test_export import loaded
from tools.random_checkpoint import main


@pytest.fixture
def write(tmp_path):
    def write(name: str, *flags: str, data: dict | None = None):
        source = tmp_path / f"{name}.json"
        source.write_text(json.dumps(data or tiny_config("3b")))
        summary = main([str(source), str(tmp_path / name), *flags])
        return tmp_path / name, summary

    return write


def contents(directory) -> dict[str, bytes]:
    return {name: tensor.load().tobytes() for name, tensor in read_directory(directory).items()}


def test_seed_decides_and_shard_size_does_not(write):
    first, one = write("a", "--seed=4")
    second, many = write("b", "--seed=4", "--max-shard-size=50KB")
    other, _ = write("c", "--seed=5")
    assert one["weight_files"] == 1 < many["weight_files"]
    assert contents(first) == contents(second)
    assert all(contents(other)[name] != data for name, data in contents(first).items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_types_and_distributions(write, dtype):
    directory, summary = write("a", f"--dtype={dtype}", "--gain=2")
    tensors = read_directory(directory)
    assert {tensor.dtype.name for tensor in tensors.values()} == {dtype}
    assert summary["parameters"] == sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    weight = tensors["thinker.model.layers.1.mlp.up_proj.weight"].load().astype(np.float32)
    assert abs(weight.std() * np.sqrt(weight.shape[1]) - 2) < 0.1 and abs(weight.mean()) < 0.01
    assert abs(tensors["thinker.model.norm.weight"].load().astype(np.float32).mean() - 1) < 0.1


def test_transformers_loads_it_and_says_varied_things(write):
    directory, _ = write("a", "--dtype=float32")
    whole = loaded(Qwen2_5OmniForConditionalGeneration, directory)
    thinker = Qwen2_5OmniForConditionalGeneration.from_pretrained(directory).thinker
    assert not whole.has_talker and whole.thinker.state_dict().keys() == thinker.state_dict().keys()
    reply = thinker.generate(torch.tensor([[7, 90, 33, 200]]), do_sample=False, max_new_tokens=48, min_new_tokens=48)
    assert len(set(reply[0, 4:].tolist())) > 20


def test_thinker_alone(write):
    directory, _ = write("a", data=tiny_config("7b")["thinker_config"])
    assert OmniConfig.load(directory).thinker_prefix == "" and not (directory / "spk_dict.pt").exists()
    assert "model.norm.weight" in read_directory(directory)


TEXT = "<|im_start|>user\nHello, Wörld 你好 123! <|IMAGE|><|im_end|>\n"


def test_tokenizers_agree(write):
    directory, _ = write("a")
    config = OmniConfig.load(directory)
    ours = Tokenizer.load(directory)
    ids = ours.encode(TEXT)
    assert ours.decode(ids, skip_special=False) == TEXT and ours.size == config.thinker_config.text_config.vocab_size
    assert all(ours.token_id(name) == token for name, token in special_tokens(config).items())
    for theirs in (Qwen2Tokenizer.from_pretrained(directory), PreTrainedTokenizerFast.from_pretrained(directory)):
        assert theirs(TEXT)["input_ids"] == ids and theirs.decode(ids) == TEXT
        assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")
    (directory / "tokenizer.json").unlink()
    assert Tokenizer.load(directory).encode(TEXT) == ids
    # Ids that no text is encoded to still decode to something, each to something else.
    words = [ours.decode([token]) for token in range(270, 643)]
    assert len(set(words)) == len(words) and all(word.strip() for word in words)


def test_chat_template(write):
    directory, _ = write("a")
    tokenizer = Qwen2Tokenizer.from_pretrained(directory)
    template = json.loads((directory / "chat_template.json").read_text())["chat_template"]
    content = [{"type": "image", "image": "a"}, {"type": "audio", "audio": "b"}, {"type": "video", "video": "c"},
               {"type": "text", "text": "what?"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], chat_template=template, tokenize=False,
                                         add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_bos|><|IMAGE|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
        "<|vision_bos|><|VIDEO|><|vision_eos|>what?<|im_end|>\n<|im_start|>assistant\n")


def test_ids_inside_the_bytes_are_refused(write, tmp_path):
    data = tiny_config("7b")
    data["thinker_config"]["image_token_index"] = 70
    with pytest.raises(OmniError, match=r"<\|IMAGE\|>"):
        write("a", data=data)
    assert not (tmp_path / "a").exists()


def test_special_tokens_of_the_releases():
    thinker = {**tiny_config("7b")["thinker_config"], "pad_token_id": 151643, "bos_token_id": 151644,
               "eos_token_id": 151645, "audio_token_index": 151646, "audio_start_token_id": 151647,
               "audio_end_token_id": 151648, "vision_start_token_id": 151652, "vision_end_token_id": 151653,
               "image_token_index": 151655, "video_token_index": 151656}
    thinker["text_config"]["vocab_size"] = 152064
    found = special_tokens(OmniConfig.from_json({"thinker_config": thinker}))
    assert found["<|im_end|>"] == 151645 and found["<|VIDEO|>"] == 151656 and len(found) == 10
    assert special_tokens(omni_config()) != found
