"""The first stage: the vision tower learns which of a hundred captions belongs to which picture. A Thinker that starts
from random weights learns to look so slowly that its tower goes first.

    python -m tools.train configs/contrast_tiny.py --workdir out/tiny/contrast

Expect 22 / 38 / 56 / 64 % of the held-out captions found among 112 after 250 / 500 / 1,000 / 2,000 steps; 42 minutes
on two cores.
"""

from configs.tiny_stages import CAPTIONED, CAPTIONED_MEDIA, tiny

config = tiny("model", CAPTIONED, CAPTIONED_MEDIA, length=384, batch_size=16, steps=2_000, objective="contrast",
              train=("thinker/vision/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
              **{"optimizer.muon": ("thinker/vision/*",), "optimizer.muon_rate": 10.0})
