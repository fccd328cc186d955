"""The ninth stage: all of the Thinker learns on, above all to answer what it is asked aloud.

    python -m tools.train configs/answer_tiny.py --workdir out/tiny/answer
"""

from configs.tiny_stages import ANSWERED, ANSWERED_MEDIA, WATCHED, sources, tiny

config = tiny("watch_model", ANSWERED, ANSWERED_MEDIA, length=704, batch_size=6, steps=500, **{
    "data.held_out": sources(WATCHED, "held_out"), "optimizer.warmup_steps": 30,
    "optimizer.muon": ("thinker/decoder/*", "thinker/audio/*"), "optimizer.rates": (("thinker/vision/*", 0.3),)})
