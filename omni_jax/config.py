"""Configurations: one frozen dataclass per network, read from a checkpoint's `config.json` and written back.

Field names are those of Hugging Face. There are no class defaults for sizes, on purpose: the defaults of the
reference's own classes match neither released size, so a missing size is an error, not a guess.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_jax.errors import OmniError
from omni_jax.errors import require as _require
from omni_jax.speech_config import (  # noqa: F401 (read here, named here)
    BigVGANConfig,
    CodecConfig,
    CodecEncoderConfig,
    DiscriminatorConfig,
    DiTConfig,
    MelConfig,
    Token2WavConfig,
)

# Spellings that mean the same: ours (left) and the others found in published checkpoints.
ALIASES = {
    "hidden_size": ("dim",),
    "depth": ("num_hidden_layers",),
    "num_hidden_layers": ("depth",),
    "num_attention_heads": ("heads",),
    "rope_parameters": ("rope_scaling",),
    "audio_token_index": ("audio_token_id",),
    "image_token_index": ("image_token_id",),
    "video_token_index": ("video_token_id",),
}
# Settings that this code fixes; a checkpoint that says otherwise is another model.
FIXED = {"hidden_act": "silu", "activation_function": "gelu", "use_sliding_window": False, "scale_embedding": False}
# Pictures are normalised by the mean and standard deviation of each colour over CLIP's training set, for [0, 1].
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
# Endings of fields that may be 0; other numbers are sizes, rates, bases. (The 3B's Talker gives its widths no section.)
MAY_BE_0 = ("_token_id", "_token_index", "_block_indexes", "look_ahead_layers", "look_backward_layers",
            "talker_config.mrope_section", "mel.low", "encoder.look_back", "encoder.look_ahead")
_MISSING = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A Qwen2 decoder. `mrope_section`: rotary frequencies (pairs) given to time, height and width."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    head_dim: int


@dataclasses.dataclass(frozen=True)
class TextConfig(DecoderConfig):
    """The Thinker's decoder."""

    def __post_init__(self):
        _check_decoder(self, "text_config")


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """The audio tower: a Whisper-like encoder over blocks of 2 * `n_window` mel frames."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    n_window: int
    num_mel_bins: int
    output_dim: int

    def __post_init__(self):
        _require(self.d_model % self.encoder_attention_heads == 0, "audio_config",
                 "d_model must be a multiple of encoder_attention_heads")
        # A block gives n_window positions, which are pooled in pairs over the clip: even blocks keep pairs inside.
        _require(self.n_window % 2 == 0, "audio_config", "n_window must be even")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower: a ViT with window attention; `window_size` and `patch_size` are in pixels."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    in_channels: int
    window_size: int
    fullatt_block_indexes: tuple[int, ...]

    def __post_init__(self):
        _require(self.hidden_size % self.num_heads == 0 and self.hidden_size // self.num_heads % 4 == 0,
                 "vision_config", "hidden_size / num_heads must be a whole multiple of 4 (rotary pairs for two axes)")
        _require(self.window_size % (self.patch_size * self.spatial_merge_size) == 0, "vision_config",
                 "window_size must be a multiple of patch_size * spatial_merge_size")
        _require(self.in_channels == 3, "vision_config", "in_channels must be 3: pictures are read as RGB")

    @property
    def cell_pixels(self) -> int:
        """Side in pixels of one merged cell, the area that becomes one token: 28 in both releases."""
        return self.patch_size * self.spatial_merge_size

    @property
    def window_cells(self) -> int:
        """Side of an attention window in merged cells: 4 in both releases."""
        return self.window_size // self.cell_pixels


@dataclasses.dataclass(frozen=True)
class ThinkerConfig:
    """Encoders, decoder and the token ids that tie them together."""

    text_config: TextConfig
    audio_config: AudioConfig
    vision_config: VisionConfig
    audio_token_index: int
    image_token_index: int
    video_token_index: int
    audio_start_token_id: int
    audio_end_token_id: int
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    position_id_per_seconds: int = 25
    eos_token_id: int = 151645
    pad_token_id: int = 151643
    tie_word_embeddings: bool = False  # transformers goes by this one, whatever text_config says

    @property
    def media_token_ids(self) -> tuple[int, int, int]:
        """What stands in a prompt where a tower's vectors go."""
        return self.audio_token_index, self.image_token_index, self.video_token_index

    def __post_init__(self):
        for name, width in (("audio_config.output_dim", self.audio_config.output_dim),
                            ("vision_config.out_hidden_size", self.vision_config.out_hidden_size)):
            _require(width == self.text_config.hidden_size, "thinker_config",
                     f"{name} {width} must equal text_config.hidden_size {self.text_config.hidden_size}")
        _check_ids(self, self.text_config.vocab_size, "thinker_config")


@dataclasses.dataclass(frozen=True)
class TalkerConfig(DecoderConfig):
    """The Talker: a decoder over codec ids (`vocab_size`) and the Thinker's vectors (`embedding_size`).

    Ids named tts_text are of the Thinker's vocabulary, those named tts_codec of the Talker's.
    """

    embedding_size: int
    tts_text_end_token_id: int
    tts_text_pad_token_id: int
    tts_codec_start_token_id: int
    tts_codec_end_token_id: int
    tts_codec_pad_token_id: int
    tts_codec_mask_token_id: int

    def __post_init__(self):
        _check_decoder(self, "talker_config")
        _check_ids(self, self.vocab_size, "talker_config", "tts_codec_")


@dataclasses.dataclass(frozen=True)
class OmniConfig:
    """A whole checkpoint; without speech, the last two networks are None. `source` is the JSON it was read from:
    `to_json` lays the fields over it, so that what this code does not use survives a round trip."""

    thinker_config: ThinkerConfig
    talker_config: TalkerConfig | None = None
    token2wav_config: Token2WavConfig | None = None
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if self.talker_config is None:
            return
        text, talker = self.thinker_config.text_config, self.talker_config
        _require(talker.embedding_size == text.hidden_size, "talker_config", f"embedding_size {talker.embedding_size} "
                 f"must equal thinker_config.text_config.hidden_size {text.hidden_size}")
        _check_ids(talker, text.vocab_size, "talker_config", "tts_text_")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "OmniConfig":
        """From the content of `config.json`, of a whole model or of a Thinker alone. Raises OmniError."""
        if "thinker_config" not in data:
            return cls(_read(ThinkerConfig, data, "config"), source=data)
        speaks = data.get("enable_audio_output", True)
        parts = {field.name: _convert(field.type, data[field.name], field.name) for field in dataclasses.fields(cls)
                 if (speaks or field.name == "thinker_config") and data.get(field.name) is not None}
        return cls(**parts, source=data)

    @classmethod
    def load(cls, path: str | Path) -> "OmniConfig":
        """From `config.json` or the directory that holds it. Raises OmniError."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        data = read_json_object(path, "a checkpoint directory needs it")
        try:
            return cls.from_json(data)
        except OmniError as error:
            raise OmniError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The content of a `config.json` that this class and transformers read."""
        if not self._is_whole:
            return _write(self.thinker_config, self.source)
        speaks = self.talker_config is not None
        kind = {"architectures": ["Qwen2_5OmniForConditionalGeneration"], "model_type": "qwen2_5_omni",
                "enable_audio_output": speaks}
        return {**kind, **_write(self, self.source)}

    @property
    def _is_whole(self) -> bool:
        """False for the directory of a Thinker alone, whose names carry no `thinker.` prefix."""
        return not self.source or "thinker_config" in self.source

    @property
    def thinker_prefix(self) -> str:
        """What the Thinker's tensor names begin with in this checkpoint."""
        return "thinker." if self._is_whole else ""

    def without_speech(self) -> "OmniConfig":
        """The same checkpoint as its Thinker alone would be written."""
        source = {key: value for key, value in self.source.items() if key not in ("talker_config", "token2wav_config")}
        source |= {"enable_audio_output": False} if self._is_whole else {}
        return OmniConfig(self.thinker_config, source=source)


def read_config(cls: type, path: Path, advice: str) -> Any:
    """A dataclass of this file's, or of speech_config.py's, from a JSON file of its own. Raises OmniError, which ends
    with `advice` where the file is missing or no JSON object."""
    data = read_json_object(path, advice)
    try:
        return _read(cls, data, "config")
    except OmniError as error:
        raise OmniError(f"{path}: {error}") from None


def read_json_object(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file. Raises OmniError that ends with `advice`, on what to do."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        raise OmniError(f"{path}: is not valid JSON ({error}); {advice}") from None
    if not isinstance(data, dict):
        raise OmniError(f"{path}: must hold a JSON object, not a {type(data).__name__}; {advice}")
    return data


def _check_decoder(config: DecoderConfig, where: str) -> None:
    _require(config.num_attention_heads % config.num_key_value_heads == 0, where,
             "num_attention_heads must be a multiple of num_key_value_heads")
    _require(2 * sum(config.mrope_section) == config.head_dim, where,
             f"mrope_section {list(config.mrope_section)} must add up to half of head_dim {config.head_dim}")


def _check_ids(config: Any, size: int, where: str, start: str = "") -> None:
    """Token ids whose names begin with `start`, against a vocabulary's size."""
    for field in dataclasses.fields(config):
        if field.name.startswith(start) and field.name.endswith(("_token_id", "_token_index")):
            value = getattr(config, field.name)
            _require(0 <= value < size, where, f"{field.name} {value} lies outside the vocabulary of {size}")


def _lookup(data: Mapping[str, Any], name: str) -> Any:
    return next((data[key] for key in (name, *ALIASES.get(name, ())) if data.get(key) is not None), _MISSING)


def _derived(data: Mapping[str, Any], name: str, read: Mapping[str, Any]) -> Any:
    """Fields that config.json says indirectly: inside the rope dictionary, or by a quotient of fields `read` before."""
    rope = _lookup(data, "rope_parameters")
    if name in ("mrope_section", "rope_theta") and isinstance(rope, Mapping):
        return rope.get(name, _MISSING)
    if name == "head_dim" and {"hidden_size", "num_attention_heads"} <= read.keys():
        size, rest = divmod(read["hidden_size"], read["num_attention_heads"])
        return _MISSING if rest else size
    return _MISSING


def _read(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise OmniError(f"{where}: must be a JSON object")
    for name, expected in FIXED.items():
        if data.get(name, expected) != expected:
            raise OmniError(f"{where}: {name} is {data[name]!r}, and only {expected!r} is supported")
    values = {}
    for field in dataclasses.fields(cls):
        value = _lookup(data, field.name)
        value = _derived(data, field.name, values) if value is _MISSING else value
        if value is _MISSING and field.default is _MISSING:
            raise OmniError(f"{where}: field {field.name} is missing")
        if value is not _MISSING:
            values[field.name] = _convert(field.type, value, f"{where}.{field.name}")
    return cls(**values)


def _convert(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None
        kind = kind.__args__[0]
    if dataclasses.is_dataclass(kind):
        return _read(kind, value, where)
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and _is_number(value, kind):
        return _positive(kind(value), where)
    if getattr(kind, "__origin__", None) is tuple and isinstance(value, (list, tuple)):
        kinds = kind.__args__[:1] * len(value) if kind.__args__[-1] is ... else kind.__args__
        if len(kinds) == len(value):
            return tuple(_convert(each, v, where) for each, v in zip(kinds, value, strict=True))
    raise OmniError(f"{where}: {value!r} is not a valid {getattr(kind, '__name__', kind)}")


def _is_number(value: Any, kind: type) -> bool:
    """Whether `value` is a number that an array's size (int) or a float32 can be; JSON also knows NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 3e38 if kind is float else abs(value) < 2**31 and value == int(value)


def _positive(number: float, where: str) -> float:
    zero = where.endswith(MAY_BE_0)
    _require(number > 0 or (zero and number == 0), where, f"{number} must be {'0 or more' if zero else 'above 0'}")
    return number


def _write(config: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    """The dataclass over the JSON it came from, in the spelling that JSON used."""
    out = dict(source)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None or field.name == "source":
            continue
        if dataclasses.is_dataclass(value):
            out[field.name] = _write(value, source.get(field.name, {}))
            continue
        if field.name in ("rope_theta", "mrope_section"):
            rope_key = "rope_scaling" if "rope_scaling" in out else "rope_parameters"
            rope = {"rope_type": "default", **(out.get(rope_key) or {})}
            if field.name == "mrope_section" or field.name in rope or "rope_theta" not in out:
                out[rope_key] = {**rope, field.name: _plain(value)}
                continue
        quotient = field.name == "head_dim" and value == config.hidden_size // config.num_attention_heads
        if quotient and "head_dim" not in source:
            continue
        key = next((k for k in (field.name, *ALIASES.get(field.name, ())) if k in out), field.name)
        out[key] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value

