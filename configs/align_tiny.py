"""The vision tower alone learns to tell the Thinker, as it is, what it has learnt to see in cells_tiny.py.

    python -m tools.train configs/align_tiny.py --workdir out/tiny/align

Expect 0.597 / 0.566 / 0.549 / 0.541 nats a token after 160 / 320 / 480 / 640 steps, in training 0.39; 38 minutes on two
cores, with the first 20,000 pictures of `looking` and 3,000 videos. omni-tiny goes seven tenths of the way (see the
Makefile): of 3,000 held-out examples 90 % of the colours are right, 52 % of the counts, 31 % of the names and 53 % of
the positions (before cells 88, 49, 31 and 50; at the end 91, 52, 31 and 51). At the end the yellow taxi of the samples
is called green, half of the way purple: the colour of one of two things as they are drawn is mostly luck still.
"""

from configs.tiny_stages import ALIGNED, LOOKING, SIGHT, sources, tiny
from omni_jax.training.config import MediaBudget

config = tiny("told_model", ALIGNED, MediaBudget(audio_blocks=4, frame_pairs=((1, 22),), pictures=8), steps=640,
              accumulate=4, **{**LOOKING, "data.held_out": sources(SIGHT, "held_out")})
