"""The Talker replies to what omni-tiny hears and sees, of which its text hangs on, in its two voices.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices
"""

from configs.speech_stages import voices
from configs.tiny_stages import REPLIED, SAID_MEDIA, speaking

config = voices(speaking("talker_model", REPLIED, batch_size=3, steps=300, **{
    "data.length": 480, "data.speech_length": 1024, "data.media": SAID_MEDIA, "optimizer.warmup_steps": 20}), rate=1e-3)
