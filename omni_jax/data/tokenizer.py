"""Qwen's byte-level BPE, over the `tokenizers` library."""

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from omni_jax.config import read_json_object
from omni_jax.errors import OmniError

# Qwen2's split into words: contractions, words with one leading mark, single digits, punctuation, line ends, spaces.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # not in UTF-8; Python and JSON know it, of texts cut in UTF-16


class Tokenizer:
    """Text to token ids and back. Build it with `Tokenizer.load`."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        self._special = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)

    @classmethod
    def load(cls, directory: str | Path) -> "Tokenizer":
        """From tokenizer.json, or from vocab.json and merges.txt, with the added tokens of added_tokens.json and
        tokenizer_config.json. Raises OmniError that names the file."""
        directory = Path(directory)
        whole = directory / "tokenizer.json"
        if whole.exists():
            try:
                backend = tokenizers.Tokenizer.from_file(str(whole))
            except Exception as error:  # the library raises bare Exception
                raise OmniError(f"{whole}: is not a tokenizer ({error}); copy it from the checkpoint again") from None
        else:
            backend = _byte_level_bpe(directory)
        _add_tokens(backend, directory)
        return cls(backend)

    @property
    def size(self) -> int:
        """Number of ids, added tokens included; the embedding may have more rows."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Special tokens in it are parsed as such; nothing is added at the ends. Raises OmniError
        if it has no UTF-8."""
        if lone := LONE_SURROGATE.search(text):
            raise OmniError(f"text: character {lone.start()} is {lone.group()!r}, half of a character that UTF-16 "
                            "writes in two; give both halves or remove it")
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD and ids without a token vanish."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int | None:
        """The id of one token by its exact name, or None."""
        return self._backend.token_to_id(token)

    def is_special(self, token_id: int) -> bool:
        """Whether `decode` leaves this id out by default."""
        return token_id in self._special

    def token_bytes(self, token_id: int) -> bytes:
        """What one id contributes to the decoded text; an id without a token contributes nothing."""
        token = self._backend.id_to_token(int(token_id))
        if token is None:
            return b""
        table = _byte_of_character()
        if all(character in table for character in token):
            return bytes(table[character] for character in token)
        return token.encode()  # an added token with characters outside the byte alphabet stands for itself


class StreamDecoder:
    """Decodes ids as they arrive, never emitting part of a character: all pieces joined equal `Tokenizer.decode`."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        self._tokenizer, self._skip_special = tokenizer, skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The text that `ids` complete; it may be empty."""
        kept = (i for i in ids if not (self._skip_special and self._tokenizer.is_special(int(i))))
        return self._utf8.decode(b"".join(self._tokenizer.token_bytes(i) for i in kept))

    def flush(self) -> str:
        """The rest, U+FFFD for an unfinished character; the decoder then starts anew."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: each byte as one printable character (itself, or 256 and up in order of the bytes)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


def _byte_level_bpe(directory: Path) -> tokenizers.Tokenizer:
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    for path in (vocab, merges):
        if not path.exists():
            raise OmniError(f"{path}: is missing; a checkpoint needs tokenizer.json, or vocab.json and merges.txt")
    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises bare Exception
        raise OmniError(f"{vocab}: does not go with {merges.name} ({error}); copy both from the checkpoint") from None
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_tokens(backend: tokenizers.Tokenizer, directory: Path) -> None:
    """The tokens that the side files name and the main file lacks, each under its own id."""
    tokens = {**_from_added_tokens(directory / "added_tokens.json"),
              **_from_decoder(directory / "tokenizer_config.json")}
    known = backend.get_added_tokens_decoder()
    for i, token in sorted(tokens.items(), key=lambda pair: pair[0]):
        if i in known and known[i].content == token.content:
            continue
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != i:
            raise OmniError(f"{directory}: the added token {token.content} should have id {i}, but the tokenizer gives "
                            f"it {backend.token_to_id(token.content)}; copy the tokenizer files from one checkpoint")


def _from_added_tokens(path: Path) -> dict[int, AddedToken]:
    tokens = {}
    for content, i in _read_json(path).items():
        if isinstance(i, bool) or not isinstance(i, int) or i < 0:
            raise OmniError(f"{path}: the id of {content!r} is {i!r}, not a number; copy it from the checkpoint again")
        tokens[i] = AddedToken(_content(content, path), special=content.startswith("<|"), normalized=False)
    return tokens


def _from_decoder(path: Path) -> dict[int, AddedToken]:
    entries = _read_json(path).get("added_tokens_decoder") or {}
    if not isinstance(entries, dict):
        raise OmniError(f"{path}: added_tokens_decoder must be a JSON object; copy it from the checkpoint again")
    tokens = {}
    for i, entry in entries.items():
        if not (i.isascii() and i.isdecimal() and isinstance(entry, dict)):
            raise OmniError(f"{path}: added_tokens_decoder has the entry {i!r}: {str(entry)[:60]!r}, not an id and a "
                            "JSON object; copy it from the checkpoint again")
        flags = {k: bool(entry[k]) for k in ("lstrip", "rstrip", "single_word", "normalized", "special") if k in entry}
        tokens[int(i)] = AddedToken(_content(entry.get("content"), f"{path}: added_tokens_decoder {i}"), **flags)
    return tokens


def _content(text: Any, where: Any) -> str:
    if not isinstance(text, str) or not text or LONE_SURROGATE.search(text):
        raise OmniError(f"{where}: {text!r} is not the text of a token; copy it from the checkpoint again")
    return text


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, "copy it from the checkpoint again") if path.exists() else {}
