"""The stages that train the voice (paper, section 4.3, and what it leaves out) at three sizes.

Two ways lead to codes of recorded speech: `distill` teaches an encoder to read what a frozen Token2Wav says, and
`encode` goes on with recordings, for checkpoints that speak already; `codec`, `flow` and `vocoder` make a new voice
stack. Then the Talker learns: `talker`, `preference` and `voices`. The files beside this one name a stage and a size;
`make voice-smoke` runs the smoke size.
"""

from configs.stages import MEDIA, SMOKE, with_fields
from omni_jax.config import MelConfig
from omni_jax.training.config import (
    DataConfig,
    DiscriminatorConfig,
    OptimizerConfig,
    Source,
    SpeechConfig,
    TrainConfig,
)

TALKER, DIT, VOCODER = ("talker/*",), ("token2wav/dit/*", "speaker_encoder/*"), ("token2wav/bigvgan/*",)
ENCODER, DISCRIMINATORS = ("codec_encoder/*",), ("discriminators/*",)


def released(size: str, **fields) -> TrainConfig:
    """A run of the 3B or the 7B on conversations whose assistant turns are spoken, in `data/speech.jsonl`."""
    data = DataConfig((Source("data/speech.jsonl"),), (Source("data/speech_held_out.jsonl"),), length=4096,
                      speech_length=8192, media=MEDIA, workers=8, use_audio_in_video=True)
    start = TrainConfig(f"Qwen2.5-Omni-{size.upper()}", data, batch_size=64, accumulate=8, steps=20_000)
    return with_fields(start, fields)


RECORDED = f"{SMOKE}/speech/{{}}_digits.jsonl"  # what flite said, …
CODED = f"{SMOKE}/speech/{{}}_codes.jsonl"  # its codes, …
MORE = {"data.train": (Source(f"{SMOKE}/more/seen_codes.jsonl"),),
        "data.held_out": (Source(CODED.format("held_out")),), "optimizer.weight_decay": 0.1}
SPOKEN = f"{SMOKE}/{{}}_spoken/manifest.jsonl"  # what Token2Wav said of these codes, …
PAIRS = f"{SMOKE}/speech/{{}}_pairs.jsonl"  # and better and worse speech of the Talker.
SMALL = {"speech.encoder_width": 128, "speech.encoder_layers": 4, "speech.revive": 0.1}
JUDGES = DiscriminatorConfig((2, 3), (8, 16, 32), ((512, 120, 480),), 8)


def smoke(model: str, manifests: str = RECORDED, **fields) -> TrainConfig:
    """A run of minutes on two cores, from `model` of the smoke directory, on spoken phrases of a few digits."""
    sources = lambda part: (Source(manifests.format(part)),)
    data = DataConfig(sources("train"), sources("held_out"), length=256, speech_length=768)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=20)
    start = TrainConfig(f"{SMOKE}/{model}", data, optimizer=optimizer, dtype="float32", remat="none", steps=600,
                        batch_size=8, eval_every=100, eval_batches=4, checkpoint_every=200, keep=2,
                        # Pauses of flite's are digital silence, which a small vocoder would spend its time on.
                        speech=SpeechConfig(clip=8, reference=6, mel=MelConfig(floor=1e-3)))
    return with_fields(start, fields)


def codec(start: TrainConfig, rate: float = 2e-4) -> TrainConfig:
    """A new voice stack: codec encoder, code table, DiT and speaker encoder, together by flow matching."""
    return with_fields(start, {"objective": "codec", "train": (*ENCODER, *DIT), "optimizer.learning_rate": rate,
                         "average": 0.999})


def flow(start: TrainConfig, rate: float = 1e-4) -> TrainConfig:
    """The DiT alone, by flow matching on codes that are given."""
    return with_fields(start, {"objective": "flow", "train": DIT, "optimizer.learning_rate": rate, "average": 0.999})


def vocoder(start: TrainConfig, rate: float = 1e-4) -> TrainConfig:
    """BigVGAN against its discriminators, on clips of half a second."""
    return with_fields(start, {"objective": "vocoder", "train": (*VOCODER, *DISCRIMINATORS), "speech.clip": 2,
                               "dtype": "float32", "optimizer.learning_rate": rate, "optimizer.b1": 0.8,
                               "optimizer.b2": 0.99, "optimizer.clip_norm": 0.0, "average": 0.999})


def distill(start: TrainConfig, rate: float = 3e-4) -> TrainConfig:
    """The codec encoder alone: it learns to read the codes that a frozen Token2Wav has spoken."""
    return with_fields(start, {"objective": "distill", "train": ENCODER, "optimizer.learning_rate": rate,
                               "average": 0.999})


def encode(start: TrainConfig, rate: float = 1e-4) -> TrainConfig:
    """The codec encoder alone, on recordings: it learns which codes a frozen DiT speaks best."""
    return with_fields(start, {"objective": "encode", "train": ENCODER, "optimizer.learning_rate": rate,
                               "average": 0.999})


def talker(start: TrainConfig, rate: float = 1e-4) -> TrainConfig:
    """Context continuation: the next code over multimodal contexts, the Thinker frozen, the speaker drawn apart from
    the text."""
    return with_fields(start, {"objective": "talker", "train": TALKER, "optimizer.learning_rate": rate,
                         "speech.apart": 1.0})


def preference(start: TrainConfig, rate: float = 1e-6) -> TrainConfig:
    """Direct preference optimization on pairs of tools.make_preferences."""
    return with_fields(start, {"objective": "preference", "train": TALKER, "optimizer.learning_rate": rate})


def voices(start: TrainConfig, rate: float = 2e-5) -> TrainConfig:
    """Multi-speaker tuning: the voice that each example names."""
    return with_fields(start, {"objective": "talker", "train": TALKER, "optimizer.learning_rate": rate})
