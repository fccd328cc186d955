"""The first stage: the vision tower learns which of a hundred captions belongs to which picture. A Thinker that starts
from random weights learns to look so slowly that its tower goes first.

    python -m tools.train configs/contrast_tiny.py --workdir out/tiny/contrast

Expect 22 / 38 / 56 / 64 % of the held-out captions found among 112 after 250 / 500 / 1,000 / 2,000 steps; 42 minutes
on two cores.
"""

from configs.tiny_stages import TINY, tiny
from omni_jax.training.config import MediaBudget, Source

captions = lambda part: (Source(f"{TINY}/data/seeing/captions_{part}.jsonl"),)

media = MediaBudget(frame_pairs=((1, 112),), pictures=8)

config = tiny("model", {}, media, length=384, batch_size=16, steps=2_000, objective="contrast", **{
    "train": ("thinker/vision/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
    "data.train": captions("train"), "data.held_out": captions("held_out"),
    "optimizer.muon": ("thinker/vision/*",), "optimizer.muon_rate": 10.0})
