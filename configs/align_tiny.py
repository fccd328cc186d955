"""A trial: the vision tower alone learns to tell the Thinker, as it is, what it has learnt to see in cells_tiny.py.

    python -m tools.train configs/align_tiny.py --workdir out/tiny/align

Expect 0.512 / 0.495 / 0.476 nats a token after 180 / 360 / 540 steps (look_tiny.py: 0.509 after 1,650). It was stopped
after 623 and went on for 300 more at two thirds of the rate, a quarter of them on 5,000 pictures of one to three things
that are asked about natural colours: 0.460 / 0.451 after 100 / 300; 38 minutes on two cores. At its end, of 3,000
held-out examples, 92 % of the colours are right, 54 % of the counts, 30 % of the names and 49 % of the positions
(omni-tiny: 88, 49, 31, 50), but 58 % instead of 72 of the names in the styles that it knows, and the yellow taxi of the
samples is called brown; half of the way 86, 51, 31 and 48 %, and 64 % of those names. So it is not in what is shipped.
"""

from configs.tiny_stages import ALIGNED, LOOKED_MEDIA, LOOKING, SIGHT, sources, tiny

config = tiny("told_model", ALIGNED, LOOKED_MEDIA, steps=900,
              **{**LOOKING, "data.held_out": sources(SIGHT, "held_out")})
