"""The ninth stage: all of the Thinker learns on, above all to answer what it is asked aloud.

    python -m tools.train configs/answer_tiny.py --workdir out/tiny/answer

Expect a held-out loss of 0.567 / 0.531 nats a token after 250 / 500 steps, more than before, but 0.872 of the tokens
right instead of 0.866, and 0.07 in training; 72 minutes on one core of two. It sees worse than before: what is shipped
lies between the two (see the Makefile).
"""

from configs.tiny_stages import ANSWERED, ANSWERED_MEDIA, WATCHED, sources, tiny

config = tiny("watch_model", ANSWERED, ANSWERED_MEDIA, length=704, batch_size=6, steps=500, **{
    "data.held_out": sources(WATCHED, "held_out"), "optimizer.warmup_steps": 30,
    "optimizer.muon": ("thinker/decoder/*", "thinker/audio/*"), "optimizer.rates": (("thinker/vision/*", 0.3),)})
