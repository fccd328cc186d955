"""The small files of a new checkpoint: a byte-level tokenizer that fills the vocabulary, and processor settings.

The tokenizer has the first ranks of a published table, or byte tokens alone. Ids that no text is encoded to still
decode, to made-up words, so that what a random model "says" can be seen.
"""

import base64
import binascii
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError

# Qwen2's split into words.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_MEDIA = (  # of one content item, in the order in which the template tests them
    ("image", "Picture", "<|vision_bos|><|IMAGE|><|vision_eos|>"),
    ("audio", "Audio", "<|audio_bos|><|AUDIO|><|audio_eos|>"),
    ("video", "Video", "<|vision_bos|><|VIDEO|><|vision_eos|>"),
)


def write_text_files(directory: Path, config: OmniConfig, ranks: Sequence[bytes] = ()) -> None:
    """Writes tokenizer, chat template, preprocessor and generation files that fit `config`. ranks: of a byte-level
    vocabulary (see `read_ranks`), as many as come before the first special token; left out, the 256 bytes alone.
    Raises OmniError."""
    special = special_tokens(config)
    names = _names(ranks, min(special.values())) if ranks else _byte_symbols()
    vocabulary = _vocabulary(config.thinker_config.text_config.vocab_size, special, names)
    merges = [tuple(map(_name, pair)) for pair in merged(ranks[: len(names)])]
    _write(directory / "vocab.json", vocabulary, indent=None)
    (directory / "merges.txt").write_text("".join(["#version: 0.2\n", *(f"{a} {b}\n" for a, b in merges)]),
                                          encoding="utf-8")
    _write(directory / "tokenizer_config.json", _tokenizer_config(special))
    _write(directory / "chat_template.json", {"chat_template": _chat_template()})
    _write(directory / "preprocessor_config.json", _preprocessor_config(config))
    _write(directory / "generation_config.json", {
        "bos_token_id": special["<|im_start|>"], "do_sample": False, "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
    })
    _fast_tokenizer(vocabulary, merges, special).save(str(directory / "tokenizer.json"), pretty=False)


def read_ranks(path: str | Path) -> list[bytes]:
    """The tokens of a tiktoken file (one a line: base64, rank), in the order of their ranks. Raises OmniError."""
    try:
        lines = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        tokens = {int(rank): base64.b64decode(token, validate=True) for token, rank in lines}
    except (OSError, ValueError, binascii.Error) as error:
        raise OmniError(f"{path}: is not a tiktoken file of base64 tokens and ranks ({error}); give one") from None
    ranks = [*tokens.values()]
    if [*tokens] != [*range(len(lines))] or {len(token) for token in ranks[:256]} != {1}:
        raise OmniError(f"{path}: its ranks must count from 0 and begin with the 256 bytes; give such a file")
    return ranks


def merged(ranks: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The pair of tokens that byte pair encoding joins to each token after the bytes: what encoding it by the ranks
    below its own leaves of it."""
    known, pairs = {token: rank for rank, token in enumerate(ranks[:256])}, []
    for token in ranks[256:]:
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            rank, i = min((known.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts)))
            if rank == len(ranks):
                raise OmniError(f"ranks: token {token!r} is not made of two tokens before it; give a table of byte "
                                "pair encoding")
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        known[token] = len(known)
        pairs.append((parts[0], parts[1]))
    return pairs


def special_tokens(config: OmniConfig) -> dict[str, int]:
    """The special tokens at the ids that the configuration says, in the order of the ids. Raises OmniError."""
    thinker = config.thinker_config
    source = config.source.get("thinker_config", config.source)
    names = {
        "<|endoftext|>": thinker.pad_token_id, "<|im_start|>": source.get("bos_token_id", thinker.eos_token_id - 1),
        "<|im_end|>": thinker.eos_token_id, "<|AUDIO|>": thinker.audio_token_index,
        "<|audio_bos|>": thinker.audio_start_token_id, "<|audio_eos|>": thinker.audio_end_token_id,
        "<|vision_bos|>": thinker.vision_start_token_id, "<|vision_eos|>": thinker.vision_end_token_id,
        "<|IMAGE|>": thinker.image_token_index, "<|VIDEO|>": thinker.video_token_index,
    }  # fmt: skip
    size = thinker.text_config.vocab_size
    wrong = [name for name, token in names.items() if not 256 <= token < size]
    if wrong or len(set(names.values())) < len(names):
        raise OmniError(f"config.json: the ids of the special tokens must differ and lie in 256..{size - 1}, above the "
                        f"256 byte tokens; correct {', '.join(wrong) or 'equal ids'}")
    return dict(sorted(names.items(), key=lambda item: item[1]))


def _vocabulary(size: int, special: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    """Symbol -> id for every id: the tokens of text, special ones, and words for the rest (`Ġ` is a space)."""
    taken = {token: name for name, token in special.items()}
    symbols = [*names, *(taken.get(token) or "Ġ" + _word(token) for token in range(len(names), size))]
    return {symbol: token for token, symbol in enumerate(symbols)}


def _names(ranks: Sequence[bytes], count: int) -> list[str]:
    if len(ranks) < count:
        raise OmniError(f"ranks: {len(ranks)} tokens do not reach the first special token, {count}; give more")
    return [_name(token) for token in ranks[:count]]


def _name(token: bytes) -> str:
    """A token as vocabularies write it, a printable character for each byte."""
    return "".join(_SYMBOLS[byte] for byte in token)


def _printable() -> list[int]:
    return [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]


def _byte_symbols() -> list[str]:
    """The 256 symbols in the order of the published vocabulary: printable bytes first, then the others."""
    printable = _printable()
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


# A byte's symbol: itself if it can be printed, else one of the characters from 256 up, in turn.
_SYMBOLS = dict(zip([*_printable(), *sorted({*range(256)} - {*_printable()})], _byte_symbols(), strict=True))


def _word(number: int) -> str:
    """A different word of syllables for each number."""
    word = ""
    while number:
        number, digit = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[digit]
    return word


def _fast_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, ...]], special: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    split = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def _tokenizer_config(special: dict[str, int]) -> dict:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(token): {"content": name, **flags} for name, token in special.items()},
        "additional_special_tokens": [name for name in special if name != "<|endoftext|>"],
        "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>", "audio_token": "<|AUDIO|>",
        "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
        "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "clean_up_tokenization_spaces": False, "errors": "replace", "model_max_length": 32768,
        "processor_class": "Qwen2_5OmniProcessor", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
    }  # fmt: skip


def _preprocessor_config(config: OmniConfig) -> dict:
    vision = config.thinker_config.vision_config
    return {
        "chunk_length": 300, "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.thinker_config.audio_config.num_mel_bins, "hop_length": 160,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "max_pixels": 12845056,
        "merge_size": vision.spatial_merge_size, "min_pixels": 3136, "n_fft": 400, "n_samples": 4800000,
        "nb_max_frames": 30000, "padding_side": "right", "padding_value": 0.0, "patch_size": vision.patch_size,
        "processor_class": "Qwen2_5OmniProcessor", "return_attention_mask": True, "sampling_rate": 16000,
        "temporal_patch_size": vision.temporal_patch_size,
    }  # fmt: skip


def _chat_template() -> str:
    """ChatML with media spans; a default system message comes first if the conversation has none."""
    branches = ""
    for number, (kind, title, span) in enumerate(_MEDIA):
        test = f"content['type'] == '{kind}' or '{kind}' in content or '{kind}_url' in content"
        counted = "add_audio_id" if kind == "audio" else "add_vision_id"
        branches += (f"{{% {'el' if number else ''}if {test} %}}{{% set count.{kind} = count.{kind} + 1 %}}"
                     f"{{% if {counted} %}}{title} {{{{ count.{kind} }}}}: {{% endif %}}{span}")
    return (
        "{% set count = namespace(image=0, audio=0, video=0) %}{% for message in messages %}"
        "{% if loop.first and message['role'] != 'system' %}"
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
        "<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
        "{% for content in message['content'] %}" + branches +
        "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _write(path: Path, data: dict, indent: int | None = 2) -> None:
    path.write_text(json.dumps(data, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
