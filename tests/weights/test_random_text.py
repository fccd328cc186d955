"""A tokenizer of the first ranks of a published table."""

import base64
import dataclasses

import pytest
import tokenizers
import transformers

from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.weights.random_text import merged, read_ranks, write_text_files

BYTES = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTES += sorted({*range(256)} - {*BYTES})
WORDS = [b"th", b" a", b"the", b" th", b" the", b"in", b"ing", b" thing", b"\xc3\xa9", b"an", b" an"]
RANKS = [bytes([byte]) for byte in BYTES] + WORDS


def written(path, ranks):
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(ranks)))
    return path


def config_after(config: OmniConfig, bytes_and_words: int) -> OmniConfig:
    """With all special tokens moved up, behind so many tokens of text."""
    thinker = config.thinker_config
    moved = {name: value + bytes_and_words - 256 for name in dir(thinker)
             if name.endswith(("_token_id", "_token_index")) and isinstance(value := getattr(thinker, name), int)}
    fields = {field.name for field in dataclasses.fields(thinker)}
    thinker = dataclasses.replace(thinker, **{name: value for name, value in moved.items() if name in fields})
    source = dict(config.source)
    source["thinker_config"] = {**source["thinker_config"], "bos_token_id": thinker.eos_token_id - 1}
    return dataclasses.replace(config, thinker_config=thinker, source=source)


def test_text_is_encoded_by_the_ranks(tmp_path):
    config = config_after(OmniConfig.load("configs/smoke.json"), len(RANKS))
    write_text_files(tmp_path, config, read_ranks(written(tmp_path / "ranks", RANKS)))
    ours = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, tokens in ((" the thing", [b" the", b" thing"]), ("thé an", [b"th", b"\xc3\xa9", b" an"])):
        assert ours.encode(text).ids == theirs(text)["input_ids"] == [RANKS.index(token) for token in tokens]
        assert ours.decode(ours.encode(text).ids) == text
    assert ours.encode("<|im_end|>").ids == [config.thinker_config.eos_token_id]


def test_merges_join_what_encoding_leaves():
    pairs = dict(zip(WORDS, merged(RANKS), strict=True))
    assert pairs[b" the"] == (b" ", b"the") and pairs[b" thing"] == (b" th", b"ing")


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "words").write_text("hello\n")
    with pytest.raises(OmniError, match="is not a tiktoken file"):
        read_ranks(tmp_path / "words")
    (tmp_path / "numbers").write_text("aGk= first\n")
    with pytest.raises(OmniError, match="is not a tiktoken file"):
        read_ranks(tmp_path / "numbers")
    with pytest.raises(OmniError, match="must count from 0 and begin with the 256 bytes"):
        read_ranks(written(tmp_path / "short", WORDS))
    with pytest.raises(OmniError, match="is not made of two tokens before it"):
        merged([*RANKS[:256], b"xyz"])


def test_too_few_ranks(tmp_path):
    config = config_after(OmniConfig.load("configs/smoke.json"), len(RANKS) + 5)
    with pytest.raises(OmniError, match="do not reach the first special token"):
        write_text_files(tmp_path, config, RANKS)
