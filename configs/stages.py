"""The stages of training (paper, sections 3 and 4.2) at three sizes. The files beside this one name a stage and a size.

Checkpoints and data of the released sizes are looked for beside the repository's files, as in `Qwen2.5-Omni-7B/` and
`data/train.jsonl`; `--set` says otherwise. Those of the smoke size are made by `make train-smoke`.
"""

import dataclasses
from typing import Any

from omni_jax.training.config import DataConfig, LoraConfig, MediaBudget, OptimizerConfig, Source, TrainConfig

ADAPTERS = ("thinker/audio/proj/*", "thinker/vision/merger/*")
ENCODERS = ("thinker/audio/*", "thinker/vision/*")
LANGUAGE = ("thinker/embed/*", "thinker/decoder/*", "thinker/lm_head/*")

# A micro-batch of the released sizes: 64 s of sound, 64 frame pairs of up to 0.2 megapixels, 8 of up to 0.8.
MEDIA = MediaBudget(audio_blocks=32, frame_pairs=((16, 64), (64, 8)), pictures=32)
SMOKE = "out/smoke"


def of_kinds(*kinds: str) -> dict[str, Any]:
    """The smoke size's data of some kinds, in equal shares."""
    sources = lambda part: tuple(Source(f"{SMOKE}/data/{part}_{kind}.jsonl") for kind in kinds)
    return {"data.train": sources("train"), "data.held_out": sources("held_out")}


TEXTS = {**of_kinds("texts"), "data.media": MediaBudget()}
VIDEOS = of_kinds("videos")  # what tuning teaches: the stages before it see none


def released(size: str, **fields: Any) -> TrainConfig:
    """A run of the 3B or the 7B: 64 rows of 8,192 tokens, packed, in parts of one row for each of eight chips. More
    chips take `--set accumulate=1` and a batch_size that they divide."""
    data = DataConfig((Source("data/train.jsonl"),), (Source("data/held_out.jsonl"),), length=8192, media=MEDIA,
                      workers=8, use_audio_in_video=True)
    start = TrainConfig(f"Qwen2.5-Omni-{size.upper()}", data, batch_size=64, accumulate=8, z_loss=1e-5, steps=10_000)
    return with_fields(start, fields)


def smoke(model: str, **fields: Any) -> TrainConfig:
    """A run that learns something in a minute or two on two cores, from `model` of the smoke directory: texts, pictures
    and sounds, if `fields` do not say otherwise."""
    media = MediaBudget(audio_blocks=12, frame_pairs=((4, 24),), pictures=20)
    data = DataConfig((), length=384, media=media, use_audio_in_video=True)
    optimizer = OptimizerConfig(learning_rate=2e-3, warmup_steps=10, weight_decay=0.01)
    start = TrainConfig(f"{SMOKE}/{model}", data, optimizer=optimizer, dtype="float32", remat="none", steps=150,
                        batch_size=4, eval_every=25, eval_batches=4, checkpoint_every=50, keep=2)
    return with_fields(start, of_kinds("texts", "pictures", "sounds") | fields)


def adapters(start: TrainConfig, rate: float = 1e-3) -> TrainConfig:
    """Stage 1, first half: what joins the encoders to the frozen language model."""
    return with_fields(start, {"train": ADAPTERS, "optimizer.learning_rate": rate})


def encoders(start: TrainConfig, rate: float = 1e-4) -> TrainConfig:
    """Stage 1, second half: the encoders as well."""
    return with_fields(start, {"train": ENCODERS, "optimizer.learning_rate": rate})


def everything(start: TrainConfig, rate: float = 5e-5) -> TrainConfig:
    """Stage 2: all parameters, on mixed data; the encoders learn slower."""
    return with_fields(start, {"optimizer.learning_rate": rate, "optimizer.rates": tuple((p, 0.2) for p in ENCODERS)})


def longer(start: TrainConfig, rate: float = 2e-5) -> TrainConfig:
    """Stage 3: the same at four times the length."""
    return with_fields(everything(start, rate), {
        "data.length": 4 * start.data.length, "batch_size": start.batch_size // 4,
        "accumulate": max(1, start.accumulate // 4)})


def tuning(start: TrainConfig, rate: float = 1e-5) -> TrainConfig:
    """Instruction tuning in ChatML."""
    return with_fields(start, {"optimizer.learning_rate": rate})


def low_rank(start: TrainConfig, rate: float = 2e-4) -> TrainConfig:
    """Instruction tuning through low-rank adapters, for one GPU."""
    return with_fields(start, {"lora": LoraConfig(rank=16, alpha=32.0), "optimizer.learning_rate": rate})


def with_fields(config: Any, fields: dict[str, Any]) -> Any:
    """`config` with fields replaced; their names reach inside by dots."""
    for name, value in fields.items():
        first, _, rest = name.partition(".")
        value = with_fields(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{first: value})
    return config
