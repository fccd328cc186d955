# ruff: noqa: RUF001 - text in many scripts is the point
import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from omni_jax.config import AudioConfig, OmniConfig, TextConfig, ThinkerConfig, VisionConfig
from omni_jax.data.processor import Processor
from omni_jax.data.tokenizer import WORDS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>",
           "<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"]
CORPUS = ["You are a helpful assistant. system user assistant What do you hear? It's 12:45, isn't it?\n\n",
          "Größe und Übergrößenträger; naïve façade; 你好，世界！今天天气很好。 🎉🎊 emoji",
          "def f(x):\n    return x + 1\n"] * 4


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """vocab.json, merges.txt and tokenizer_config.json of a small byte-level BPE, special tokens last."""
    directory = tmp_path_factory.mktemp("tokenizer")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    backend.model.save(str(directory))
    size = backend.get_vocab_size()
    added = {str(size + i): {"content": token, "lstrip": False, "rstrip": False, "normalized": False,
                             "single_word": False, "special": True} for i, token in enumerate(SPECIAL)}
    added[str(size + len(SPECIAL))] = {**added[str(size)], "content": "<tool_call>", "special": False}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>",
              "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None, "add_prefix_space": False,
              "clean_up_tokenization_spaces": False, "additional_special_tokens": SPECIAL[1:],
              "model_max_length": 32768}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="session")
def token_ids(tokenizer_dir):
    """{special token: id} of `tokenizer_dir`."""
    added = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    return {entry["content"]: int(i) for i, entry in added.items()}


@pytest.fixture(scope="session")
def make_config(token_ids):
    """A small OmniConfig with the tokenizer's ids; `cell_pixels` is 2 * patch_size, windows 4 x 4 cells."""

    def make(patch_size=14, context=32768, n_window=100, mel=128):
        text = TextConfig(vocab_size=512, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                          num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=context,
                          rms_norm_eps=1e-6, rope_theta=1e6, mrope_section=(2, 1, 1), head_dim=8)
        audio = AudioConfig(d_model=20, encoder_layers=2, encoder_attention_heads=5, encoder_ffn_dim=36,
                            n_window=n_window, num_mel_bins=mel, output_dim=24)
        vision = VisionConfig(depth=3, hidden_size=32, num_heads=4, intermediate_size=44, out_hidden_size=24,
                              patch_size=patch_size, spatial_merge_size=2, temporal_patch_size=2, in_channels=3,
                              window_size=8 * patch_size, fullatt_block_indexes=(1,))
        return OmniConfig(ThinkerConfig(
            text, audio, vision, position_id_per_seconds=25,
            audio_token_index=token_ids["<|AUDIO|>"], image_token_index=token_ids["<|IMAGE|>"],
            video_token_index=token_ids["<|VIDEO|>"], audio_start_token_id=token_ids["<|audio_bos|>"],
            audio_end_token_id=token_ids["<|audio_eos|>"], vision_start_token_id=token_ids["<|vision_bos|>"],
            vision_end_token_id=token_ids["<|vision_eos|>"], eos_token_id=token_ids["<|im_end|>"],
            pad_token_id=token_ids["<|endoftext|>"]))

    return make


@pytest.fixture(scope="session")
def processor(tokenizer_dir, make_config):
    """With 8-pixel cells, so that videos stay small."""
    return Processor.load(tokenizer_dir, make_config(patch_size=4))


@pytest.fixture
def rng():
    return np.random.default_rng(7)
