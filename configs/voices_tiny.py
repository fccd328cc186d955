"""The Talker replies in its two voices to what omni-tiny hears and sees, on which the vectors that it reads depend.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices

So far 0.47 nats a code in training, 87 % of them right, but 20 % of those held out; 14 minutes on two cores.
"""

from configs.speech_stages import voices
from configs.tiny_stages import REPLIED, SAID_MEDIA, speaking

config = voices(speaking("talker_model", REPLIED, batch_size=4, steps=500, **{
    "data.length": 480, "data.speech_length": 1024, "data.media": SAID_MEDIA, "optimizer.warmup_steps": 20,
    "optimizer.weight_decay": 0.1, "average": 0.99}), rate=1e-3)
