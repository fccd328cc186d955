"""The Talker learns to read what it says: ever new sentences of known words, some of whose codes it is not given.

    python -m tools.train configs/read_tiny.py --workdir out/tiny/read

Expect 3.1 / 2.7 / 2.4 nats a code after 800 / 1,700 / 2,800 steps; that it reads is seen when it is given other texts
than what is said: after 2,170 steps 3.2 instead of 2.2 in pieces, 3.4 instead of 2.7 in new sentences of recorded
words. It was run in three parts, the rate begun anew at 810 and 1,670 steps, and pieces only from the second on; 68
minutes on two cores.
"""

from configs.speech_stages import voices
from configs.tiny_stages import READ, SAID, sources, speaking

config = voices(speaking("talker_model", READ, batch_size=4, steps=2800, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 896, "speech.masked": 0.3,
    "optimizer.warmup_steps": 40, "optimizer.weight_decay": 0.1, "average": 0.99}), rate=3e-3)
