"""What a training run is: frozen dataclasses, filled by the Python files in `configs/` and by `--set key=value`."""

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from omni_jax.config import DiscriminatorConfig, MelConfig
from omni_jax.errors import OmniError, require


@dataclasses.dataclass(frozen=True)
class Source:
    """A JSONL manifest. `weight`: its share of the mixture. `form`: messages (Qwen's own), sharegpt (LLaMA-Factory) or
    swift (ms-swift)."""

    manifest: str
    weight: float = 1.0
    form: str = "messages"

    def __post_init__(self):
        require(self.form in ("messages", "sharegpt", "swift"), "data",
                f"form {self.form!r} of {self.manifest} is not messages, sharegpt or swift")
        require(self.weight > 0, "data", f"weight {self.weight} of {self.manifest} must be above 0")


@dataclasses.dataclass(frozen=True)
class MediaBudget:
    """Media of one micro-batch of one data shard at most. They are shapes: every batch is padded to them, so that one
    program serves all batches and all hosts.

    audio_blocks: blocks of sound, 2 s each. frame_pairs: ((bins, frame pairs), …): of pictures and videos whose frame
    pairs take up to so many bins (see data.windows); each goes to the smallest that holds it. pictures: pictures and
    videos in one row.
    """

    audio_blocks: int = 0
    frame_pairs: tuple[tuple[int, int], ...] = ()
    pictures: int = 0


@dataclasses.dataclass(frozen=True)
class SpecAugmentConfig:
    """What is masked in the mel of each sound that is learnt from. bands: how many bands of mel bins, each of up to
    `band` bins; spans: how many stretches of time a second, on average, each of up to `span` frames of 10 ms."""

    bands: int = 0
    band: int = 0
    spans: float = 0.0
    span: int = 0

    def __post_init__(self):
        require(min(dataclasses.astuple(self)) >= 0, "data", "spec_augment's numbers must not be below 0")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they become batches.

    length: tokens of a row. pack: several conversations in a row, each seeing itself alone; else one a row, padded to
    the smallest of `lengths` (or to `length`). window: conversations that are packed together. workers: processes that
    decode media (0: the training process does). speech_length: steps of a row of the Talker. max_broken: share
    of the examples that may be skipped as broken. spec_augment: of the sounds of training, not of held-out ones.
    """

    train: tuple[Source, ...]
    held_out: tuple[Source, ...] = ()
    length: int = 8192
    lengths: tuple[int, ...] = ()
    pack: bool = True
    window: int = 64
    media: MediaBudget = MediaBudget()
    workers: int = 0
    speech_length: int = 4096
    use_audio_in_video: bool = False
    max_broken: float = 0.01
    spec_augment: SpecAugmentConfig = SpecAugmentConfig()


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up and a schedule (constant, linear or cosine) down to `end` times the learning rate.

    rates: ((pattern of parameter paths, factor), …): parts that learn faster or slower; the first that fits counts.
    Weight decay leaves out vectors (norms, biases). muon: patterns of the parts whose matrices are stepped by Muon
    instead, at `muon_rate` times the learning rate: from a random start a vision tower learns faster so.
    """

    learning_rate: float = 1e-5
    warmup_steps: int = 0
    schedule: str = "cosine"
    end: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    rates: tuple[tuple[str, float], ...] = ()
    muon: tuple[str, ...] = ()
    muon_rate: float = 1.0

    def __post_init__(self):
        require(self.muon_rate > 0, "optimizer", f"muon_rate {self.muon_rate} must be above 0")
        require(self.learning_rate > 0 and self.warmup_steps >= 0, "optimizer",
                f"learning_rate {self.learning_rate} must be above 0, and warmup_steps {self.warmup_steps} not below 0")
        require(self.schedule in ("constant", "linear", "cosine"), "optimizer",
                f"schedule {self.schedule!r} is not constant, linear or cosine")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the matrices whose paths fit `patterns`: W + alpha / rank * B A; only A and B learn."""

    rank: int = 16
    alpha: float = 32.0
    patterns: tuple[str, ...] = ("thinker/decoder/layers/*",)

    def __post_init__(self):
        require(self.rank >= 1, "lora", f"rank {self.rank} must be 1 or more")


@dataclasses.dataclass(frozen=True)
class SpeechConfig:
    """Training of the voice.

    apart: share of the utterances whose speaker is drawn apart from what is said, though one is named. masked: share of
    the codes that are kept from the Talker while it learns what follows (see utterances.masked). named: whether
    named voices keep the checkpoint's speaker vectors, instead of those that the speaker encoder gives. clip,
    reference: blocks of a clip to learn, and of the other stretch of its voice. drop: share of the rows trained
    without speaker, reference and codes, for guidance. commitment: weight of the encoder's distance to its codes.
    revive: usage, relative to uniform, below which a code counts as dead. beta: DPO's. text_weight: of a token's loss
    beside a code's. encoder_width, encoder_layers, encoder_ahead: of a codec encoder that is not beside the checkpoint
    yet; the last are the blocks that each layer sees ahead. mel_weight, match_weight: of the vocoder's
    L1 between mels and of feature matching.
    """

    apart: float = 0.0
    masked: float = 0.0
    named: bool = False
    clip: int = 12
    reference: int = 12
    drop: float = 0.1
    commitment: float = 0.25
    revive: float = 0.01
    beta: float = 0.1
    text_weight: float = 0.0
    encoder_width: int = 512
    encoder_layers: int = 8
    encoder_ahead: int = 0
    discriminators: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    mel: MelConfig = MelConfig()
    mel_weight: float = 45.0
    match_weight: float = 2.0

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "speech", sentence)
        need(self.clip >= 1 and self.reference >= 1, "clip and reference must be 1 block or more")
        need(0 <= self.apart <= 1, f"apart {self.apart} must be a share of the utterances, from 0 to 1")
        need(0 <= self.masked <= 1, f"masked {self.masked} must be a share of the codes, from 0 to 1")
        need(0 <= self.drop < 1, f"drop {self.drop} must be a share of the rows, from 0 to below 1")
        need(self.encoder_width >= 64 and self.encoder_width % 64 == 0 and self.encoder_layers >= 1,
             f"encoder_width {self.encoder_width} must be a multiple of 64, and encoder_layers 1 or more")
        need(self.beta > 0, f"beta {self.beta} must be above 0")
        need(min(self.commitment, self.revive, self.text_weight, self.mel_weight, self.match_weight) >= 0,
             "commitment, revive, text_weight, mel_weight and match_weight must not be below 0")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run.

    model: the checkpoint's directory. language, vision, audio: directories of Qwen2.5, Qwen2.5-VL and
    Whisper-large-v3 whose weights replace the checkpoint's. objective: a name of `training.objectives`. train: patterns
    of parameter paths that learn (`thinker/audio/proj/*`; see `fnmatch`); all others are frozen. lora: adapters, which
    then learn alone. batch_size: rows of a step over all devices, in `accumulate` equal parts. z_loss: weight of the
    squared log-normaliser of the logits. remat: what the backward pass computes again: "none", "dots" (all but matrix
    products) or "full". dtype: of the computation; what learns is kept in float32. average: share that an exponential
    average of what learns keeps at each step, as in 0.999 (0: none is kept); it is what is evaluated and
    exported. Every `*_every` is in steps; `keep`: checkpoints kept.
    """

    model: str
    data: DataConfig
    objective: str = "text"
    language: str | None = None
    vision: str | None = None
    audio: str | None = None
    train: tuple[str, ...] = ("thinker/*",)
    lora: LoraConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    speech: SpeechConfig = SpeechConfig()
    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    z_loss: float = 0.0
    remat: str = "full"
    dtype: str = "bfloat16"
    average: float = 0.0
    mesh: str | None = None
    seed: int = 0
    eval_every: int = 100
    eval_batches: int = 16
    checkpoint_every: int = 500
    keep: int = 3

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "config", sentence)
        need(self.steps >= 1 and self.batch_size >= 1 and self.accumulate >= 1,
             "steps, batch_size and accumulate must be 1 or more")
        need(self.batch_size % self.accumulate == 0,
             f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        need(0 <= self.average < 1, f"average {self.average} must lie from 0 to below 1")
        need(self.keep >= 1 and min(self.eval_batches, self.eval_every, self.checkpoint_every) >= 0,
             "keep must be 1 or more; eval_every, eval_batches and checkpoint_every 0 or more")
        need(self.remat in ("none", "dots", "full"), f"remat {self.remat!r} is not none, dots or full")
        need(self.dtype in ("bfloat16", "float32"), f"dtype {self.dtype!r} is not bfloat16 or float32")

    @property
    def parts(self) -> dict[str, str | None]:
        """The directories of other models, by part (see weights.foreign)."""
        return {"language": self.language, "vision": self.vision, "audio": self.audio}


def with_settings(config: Any, settings: Sequence[str]) -> Any:
    """The configuration with `key=value` settings; keys reach inside by dots. Raises OmniError for a key that does not
    exist, naming the nearest, and for a value of another type."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        require(bool(equals), "--set", f"{setting!r} is not key=value")
        config = _set(config, key.strip().split("."), text.strip(), key.strip())
    return config


def _set(config: Any, path: list[str], text: str, key: str) -> Any:
    kinds = typing.get_type_hints(type(config))
    if path[0] not in kinds:
        near = difflib.get_close_matches(path[0], kinds, 1, 0.0)
        prefix = key.split(".")[:-len(path)]
        raise OmniError(f"--set {key}: there is no such key; did you mean {'.'.join([*prefix, *near])}?")
    value = getattr(config, path[0])
    if path[1:]:
        if not dataclasses.is_dataclass(value):
            raise OmniError(f"--set {key}: {path[0]} has no keys inside")
        return dataclasses.replace(config, **{path[0]: _set(value, path[1:], text, key)})
    return dataclasses.replace(config, **{path[0]: convert(_literal(text), kinds[path[0]], f"--set {key}")})


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def convert(value: Any, kind: Any, where: str) -> Any:
    """`value` (as from JSON) as the type of a field. Raises OmniError."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if value is None else convert(value, inner[0], where)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return from_json(kind, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        each = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(each) == len(value):
            return tuple(convert(v, k, where) for v, k in zip(value, each, strict=True))
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is str and isinstance(value, (str, int, float)):  # a directory may be called 7
        return str(value)
    if kind in (int, bool) and type(value) is kind:
        return value
    raise OmniError(f"{where}: {value!r} is not a valid {getattr(kind, '__name__', kind)}")


def from_json(cls: type, data: Mapping[str, Any], where: str = "config") -> Any:
    """A dataclass from what `dataclasses.asdict` gave, through JSON. Raises OmniError."""
    kinds = typing.get_type_hints(cls)
    require(isinstance(data, Mapping), where, f"must be a JSON object with the keys of {cls.__name__}")
    if unknown := sorted(data.keys() - kinds.keys()):
        raise OmniError(f"{where}: {unknown[0]} is not a key of {cls.__name__}")
    required = [field.name for field in dataclasses.fields(cls)
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in data]:
        raise OmniError(f"{where}: {missing[0]} is missing; {cls.__name__} needs it")
    return cls(**{name: convert(value, kinds[name], f"{where}.{name}") for name, value in data.items()})
