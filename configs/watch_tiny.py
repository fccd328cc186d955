"""The eighth stage: all of the Thinker learns on, now from videos with their sound as well, and from more recordings.

    python -m tools.train configs/watch_tiny.py --workdir out/tiny/watch

Expect a held-out loss of 0.546 / 0.508 / 0.480 / 0.466 nats a token after 250 / 500 / 750 / 850 steps, 0.17 in
training; 58 minutes on two cores, as two devices (see talker_tiny.py).
"""

from configs.tiny_stages import WATCHED, WATCHED_MEDIA, tiny

config = tiny("blended_model", WATCHED, WATCHED_MEDIA, length=704, batch_size=6, steps=850,
              **{"optimizer.warmup_steps": 50, "optimizer.rates": (("thinker/vision/*", 0.5),)})
