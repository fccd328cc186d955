"""The Talker learns to read what it says: ever new sentences of known words, some of whose codes it is not given.

    python -m tools.train configs/read_tiny.py --workdir out/tiny/read
"""

from configs.speech_stages import voices
from configs.tiny_stages import READ, SAID, sources, speaking

config = voices(speaking("talker_model", READ, batch_size=4, steps=2800, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 896, "speech.masked": 0.3,
    "optimizer.warmup_steps": 40, "optimizer.weight_decay": 0.1, "average": 0.99}), rate=3e-3)
