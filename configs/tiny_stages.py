"""The stages that make omni-tiny, a small model of the whole architecture; so far it learns to hear, see and watch.

Data is made by tools/tiny_data, the model to start from by `make out/tiny/model`.
"""

from configs.stages import with_fields
from omni_jax.training.config import DataConfig, MediaBudget, OptimizerConfig, Source, TrainConfig

TINY = "out/tiny"
SHARES = {"hearing": 0.55, "seeing": 0.35, "watching": 0.1}  # of the examples


def tiny(model: str, **fields) -> TrainConfig:
    """A run on two cores, from `model` of the directory TINY, on speech, pictures and videos with sound."""
    sources = lambda part: tuple(Source(f"{TINY}/data/{name}/{part}.jsonl", share) for name, share in SHARES.items())
    media = MediaBudget(audio_blocks=64, frame_pairs=((1, 128),), pictures=16)
    data = DataConfig(sources("train"), sources("held_out"), length=512, media=media, use_audio_in_video=True)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=200, weight_decay=0.05, b2=0.98)
    start = TrainConfig(f"{TINY}/{model}", data, optimizer=optimizer, dtype="float32", remat="none", steps=10_000,
                        batch_size=8, eval_every=500, eval_batches=8, checkpoint_every=500, keep=2, average=0.999)
    return with_fields(start, fields)
