"""The Talker learns to say what omni-tiny answers, in its two voices, asked in writing; the Thinker is frozen.

    python -m tools.train configs/talker_tiny.py --workdir out/tiny/talker
"""

from configs.speech_stages import voices
from configs.tiny_stages import SAID, speaking

config = voices(speaking("own_model", SAID, batch_size=4, steps=1500, **{
    "data.length": 480, "data.speech_length": 1024, "optimizer.warmup_steps": 40, "optimizer.weight_decay": 0.1}),
                rate=3e-3)
