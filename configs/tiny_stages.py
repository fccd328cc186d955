"""The stages that make omni-tiny, a small model of the whole architecture: it learns to see, to hear and to speak.

Data is made by tools/tiny_data, the model to start from by `make out/tiny/model`.
"""

from collections.abc import Mapping

from configs.stages import with_fields
from omni_jax.config import MelConfig
from omni_jax.training.config import DataConfig, MediaBudget, OptimizerConfig, Source, TrainConfig

TINY = "out/tiny"
# Shares of the examples, by their manifests but for the part.
CAPTIONED = {"seeing/captions_": 1.0}
SEEN = {"seeing/": 1.0}
TIMED = {"frames/": 1.0}
SPELT = {"hearing/phones_": 1.0}
PERCEIVED = {"hearing/": 0.6, "seeing/": 0.28, "asking/": 0.12}
LISTENED = {"hearing/": 0.68, "seeing/": 0.22, "asking/": 0.1}
WATCHED = {"hearing/": 0.52, "watching/": 0.18, "seeing/": 0.2, "asking/": 0.1}
ANSWERED = {"hearing/answers_": 0.4, "hearing/": 0.28, "seeing/": 0.16, "watching/": 0.08, "asking/": 0.08}
HEEDED = {"hearing/": 0.64, "hearing/answers_": 0.12, "watching/": 0.12, "asking/": 0.12}
VOICED = {"voicing/kokoro_": 1.0}
TO_BE_CODED = {"voicing/kokoro_": 0.5, "voicing/flite_": 0.25, "speaking/": 0.25}
ITS_OWN = {"replying/": 0.5, "speaking/": 0.3, "voicing/kokoro_": 0.2}
RECORDED = {"replying/": 1.0}
CODED = {"replying/codes_": 0.5, "splicing/codes_": 0.35, "speaking/codes_": 0.15}
SAID = {"replying/codes_": 0.9, "speaking/codes_": 0.1}
READ = {"splicing/spliced_": 0.65, "splicing/codes_": 0.25, "replying/codes_": 0.1}
REPLIED = {"replying/codes_shown_": 0.4, "replying/codes_": 0.2, "splicing/codes_": 0.15, "splicing/spliced_": 0.25}
ATTUNED = {"replying/": 0.85, "speaking/": 0.15}
KNOWN = {"replying/codes_known_": 1.0}
POLISHED = {"replying/codes_known_": 0.5, "lexicon/joined_": 0.5}
CONVERSED = {"replying/codes_known_": 0.46, "lexicon/drill_": 0.34, "lexicon/spelt_": 0.2}
LOOKED = {"looking/": 0.5, "seeing/": 0.4, "watching/": 0.06, "asking/": 0.04}
CELLS = {"seeing/cells_": 0.7, "looking/cells_": 0.3}
SCANNED = {"seeing/cells_": 0.48, "looking/cells_": 0.16, "scanning/cells_": 0.36}
ALIGNED = {"seeing/": 0.5, "looking/": 0.38, "watching/": 0.08, "asking/": 0.04}
SPOKEN = {"lexicon/spelt_": 0.8, "replying/codes_typed_": 0.2}
DRILLED = {"lexicon/drill_": 0.7, "lexicon/spelt_": 0.18, "replying/codes_typed_": 0.12}
CAPTIONED_MEDIA = MediaBudget(frame_pairs=((1, 112),), pictures=8)
SEEN_MEDIA = MediaBudget(frame_pairs=((1, 80),), pictures=8)
LISTENING_MEDIA = MediaBudget(audio_blocks=64)
SAID_MEDIA = MediaBudget(audio_blocks=12, frame_pairs=((1, 24),), pictures=8)
PERCEIVED_MEDIA = MediaBudget(audio_blocks=60, frame_pairs=((1, 40),), pictures=8)
WATCHED_MEDIA = MediaBudget(audio_blocks=68, frame_pairs=((1, 56),), pictures=8)
ANSWERED_MEDIA = MediaBudget(audio_blocks=84, frame_pairs=((1, 40),), pictures=8)
HEEDED_MEDIA = MediaBudget(audio_blocks=72, frame_pairs=((1, 28),), pictures=8)
LOOKED_MEDIA = MediaBudget(audio_blocks=24, frame_pairs=((1, 88),), pictures=8)
# Of the stages in which the audio tower learns alone, through the Thinker's head.
LISTENING = {"data.pack": False, "train": ("thinker/audio/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
             "optimizer.muon": ("thinker/audio/*",), "optimizer.muon_rate": 10.0, "optimizer.warmup_steps": 40}
# Of the stages in which the vision tower learns on alone, through the Thinker as it is.
LOOKING = {"train": ("thinker/vision/*",), "average": 0.99, "optimizer.warmup_steps": 20, "optimizer.end": 0.03,
           "optimizer.muon": ("thinker/vision/*",), "optimizer.muon_rate": 3.0}
SIGHT = {"seeing/": 0.8, "watching/": 0.2}  # what they are measured by


def sources(shares: Mapping[str, float], part: str) -> tuple[Source, ...]:
    """The manifests of a part ("train", "held_out"), each with its share."""
    return tuple(Source(f"{TINY}/data/{name}{part}.jsonl", share) for name, share in shares.items())


def tiny(model: str, shares: Mapping[str, float], media: MediaBudget, length: int = 512, **fields) -> TrainConfig:
    """A run on two cores, from `model` of the directory TINY, on these parts of its data, in rows of so many tokens."""
    data = DataConfig(sources(shares, "train"), sources(shares, "held_out"), length=length, media=media,
                      use_audio_in_video=True)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.05, b2=0.98)
    start = TrainConfig(f"{TINY}/{model}", data, optimizer=optimizer, dtype="float32", remat="none", steps=4_000,
                        batch_size=8, eval_every=250, eval_batches=8, checkpoint_every=250, keep=2, average=0.999)
    return with_fields(start, fields)


def telling(model: str, shares: Mapping[str, float], **fields) -> TrainConfig:
    """A run of the vision tower, as `tiny`, that tells what each cell of a picture shows; the head and its norm learn
    with it, to read this off."""
    return tiny(model, shares, MediaBudget(frame_pairs=((1, 22),), pictures=1), length=288, **{
        **LOOKING, "objective": "cells", "train": ("thinker/vision/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
        "data.held_out": sources({"seeing/cells_": 1.0}, "held_out"), "data.pack": False, "batch_size": 88,
        "accumulate": 4, "optimizer.muon_rate": 6.0, **fields})


def speaking(model: str, shares: Mapping[str, float], **fields) -> TrainConfig:
    """A run of the voice, as `tiny`: on clips of two seconds, or on conversations that the Talker speaks in."""
    start = tiny(model, shares, MediaBudget(), **{
        "data.use_audio_in_video": False, "optimizer.weight_decay": 0.0,
        # What lies 60 dB below full scale is no speech that so small networks should spend their time on.
        "speech.mel": MelConfig(floor=1e-3), "speech.clip": 8, "speech.reference": 8, "speech.revive": 0.1,
        "speech.encoder_width": 128, "speech.encoder_layers": 4})
    return with_fields(start, fields)


def replying(model: str, shares: Mapping[str, float], **fields) -> TrainConfig:
    """A run of the Talker, as `speaking`, on replies to what it reads, hears and sees."""
    return speaking(model, shares, **{
        "batch_size": 4, "data.length": 640, "data.speech_length": 768, "data.media": SAID_MEDIA,
        "data.use_audio_in_video": True, "optimizer.warmup_steps": 20, "optimizer.muon": ("talker/*",),
        "optimizer.muon_rate": 2.0, "average": 0.99, **fields})
