"""The vision tower alone learns on, through the Thinker as it is, which leaves alone what the Talker has learnt from.

    python -m tools.train configs/look_tiny.py --workdir out/tiny/look

From pictures that are asked about in several turns, many of them to count or to find places in, and from those of
before: a tower tells columns of patches apart, which the language model's rotary embedding hardly does. Three quarters
of the share of `seeing` came from 45,000 pictures that the same tool made with another seed, and `looking` had 40,000,
none of which was asked about natural colours. Expect 0.550 / 0.538 / 0.519 / 0.509 nats a token after 330 / 660 / 990 /
1,650 steps, in training 0.53 at first and 0.43 at the end; 101 minutes on one core. cells goes on from a quarter
of the way (see the Makefile). At its end positions are right for 53 %, counts for 50 and names for 30 (before 49, 44
and 28; after a quarter 50, 49 and 31), but the yellow taxi of the samples is called purple, from 40 % of the way on.
"""

from configs.tiny_stages import LOOKED, LOOKED_MEDIA, LOOKING, SIGHT, sources, tiny

config = tiny("converse_model", LOOKED, LOOKED_MEDIA, steps=1650,
              **{**LOOKING, "data.held_out": sources(SIGHT, "held_out")})
