"""The first stage: the vision tower learns what is seen, in words without order; the rest of the Thinker waits.

    python -m tools.train configs/contrast_tiny.py --workdir out/tiny/contrast
"""

from configs.tiny_stages import TINY, tiny
from omni_jax.training.config import MediaBudget, Source

captions = lambda part: (Source(f"{TINY}/data/seeing/captions_{part}.jsonl"),)

media = MediaBudget(frame_pairs=((1, 112),), pictures=8)

config = tiny("model", {}, media, **{
    "objective": "contrast", "train": ("thinker/vision/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
    "data.train": captions("train"), "data.held_out": captions("held_out"), "data.length": 384, "batch_size": 16,
    "optimizer.muon": ("thinker/vision/*",), "optimizer.muon_rate": 10.0})
