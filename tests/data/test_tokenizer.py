# ruff: noqa: RUF001 - text in many scripts is the point
import json
import shutil

import pytest
from tokenizers import Tokenizer as Backend

from omni_jax.data.tokenizer import StreamDecoder, Tokenizer
from omni_jax.errors import OmniError
from tests.data.media_files import one_sentence

TEXTS = [
    "", " ", "Hello, world!", "It's 12:45, isn't IT?  \n\n  yes\t\tno", "naïve e\u0301clair",  # NFC composes e + accent
    "<|im_start|>user\n你好，世界！🎉<|im_end|>\n", "a<tool_call>b</tool_call>", "ＦＵＬＬ width ① ½ Ⅷ", "\r\n\r\n x",
    "🏳️‍🌈👩‍👩‍👧 done", "<|AUDIO|><|AUDIO|> text<|vision_bos|>", "don't DON'T we'LL", "1234567890 3.14",
]


@pytest.fixture(scope="module")
def reference(tokenizer_dir):
    transformers = pytest.importorskip("transformers")
    return transformers.Qwen2Tokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return Tokenizer.load(tokenizer_dir)


@pytest.mark.parametrize("text", TEXTS)
def test_equals_the_reference(tokenizer, reference, text):
    ids = tokenizer.encode(text)
    assert ids == reference(text)["input_ids"]
    for skip in (True, False):
        assert tokenizer.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_json_and_added_tokens_json_give_the_same(tokenizer, tokenizer_dir, tmp_path, token_ids, text):
    shutil.copy(tokenizer_dir / "vocab.json", tmp_path)
    shutil.copy(tokenizer_dir / "merges.txt", tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(token_ids))
    plain = Tokenizer.load(tmp_path)
    plain._backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.json").unlink()
    assert Tokenizer.load(tmp_path).encode(text) == plain.encode(text) == tokenizer.encode(text)
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == tokenizer.encode(text)


def test_token_ids(tokenizer, token_ids):
    assert all(tokenizer.token_id(token) == i for token, i in token_ids.items())
    assert tokenizer.token_id("<|nothing|>") is None
    assert tokenizer.size == max(token_ids.values()) + 1
    assert tokenizer.is_special(token_ids["<|im_end|>"]) and not tokenizer.is_special(token_ids["<tool_call>"])


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_stream_equals_decode(tokenizer, rng, step, skip):
    sequences = [tokenizer.encode(text) for text in TEXTS]
    sequences += [rng.integers(0, tokenizer.size + 5, 60).tolist() for _ in range(50)]  # broken UTF-8, unknown ids
    for ids in sequences:
        decoder = StreamDecoder(tokenizer, skip)
        pieces = [decoder.push(ids[i : i + step]) for i in range(0, len(ids), step)]
        assert "".join([*pieces, decoder.flush()]) == tokenizer.decode(ids, skip)


def test_stream_never_splits_a_character(tokenizer):
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push([i]) for i in tokenizer.encode("🎉ü你🏳️")]
    assert "\ufffd" not in "".join(pieces) and "".join(pieces) == "🎉ü你🏳️" and decoder.flush() == ""


def test_missing_and_broken_files(tokenizer_dir, tmp_path):
    with pytest.raises(OmniError) as error:
        Tokenizer.load(tmp_path)
    one_sentence(error, "vocab.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OmniError) as error:
        Tokenizer.load(tmp_path)
    one_sentence(error, "tokenizer.json")


def test_contradicting_added_tokens(tokenizer_dir, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tokenizer_dir / name, tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 9999}')
    with pytest.raises(OmniError) as error:
        Tokenizer.load(tmp_path)
    one_sentence(error, tmp_path, "<|im_end|>", "9999")


@pytest.mark.parametrize(("name", "content", "words"), [
    ("added_tokens.json", {"<|im_end|>": "x"}, ("<|im_end|>", "'x'")), ("added_tokens.json", {"<a>": None}, ("<a>",)),
    ("added_tokens.json", {"<a>": 1.5}, ("1.5",)), ("added_tokens.json", {"<a>": -1}, ("-1",)),
    ("added_tokens.json", {"<a>": True}, ("True",)), ("added_tokens.json", {"\ud800": 400}, ("text of a token",)),
    ("tokenizer_config.json", {"added_tokens_decoder": [1]}, ("added_tokens_decoder",)),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<a>"}}}, ("'x'",)),
    ("tokenizer_config.json", {"added_tokens_decoder": {"-4": {"content": "<a>"}}}, ("'-4'",)),
    ("tokenizer_config.json", {"added_tokens_decoder": {"400": {}}}, ("added_tokens_decoder 400", "None")),
    ("tokenizer_config.json", {"added_tokens_decoder": {"400": {"content": 7}}}, ("added_tokens_decoder 400", "7")),
    ("tokenizer_config.json", {"added_tokens_decoder": {"400": "<a>"}}, ("'400'", "<a>"))], ids=str)
def test_side_files_that_name_no_tokens(tokenizer_dir, tmp_path, name, content, words):
    for kept in ("vocab.json", "merges.txt"):
        shutil.copy(tokenizer_dir / kept, tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(OmniError) as error:
        Tokenizer.load(tmp_path)
    one_sentence(error, tmp_path / name, *words)


def test_half_a_character_is_no_text(tokenizer):
    with pytest.raises(OmniError) as error:
        tokenizer.encode("fine until \ud83c here")
    one_sentence(error, "character 11", r"'\ud83c'")
    assert tokenizer.encode("\U0001f389")
