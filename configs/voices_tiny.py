"""The Talker replies in its two voices to what omni-tiny hears and sees, on which the vectors that it reads depend.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices

Expect 1.45 nats a code, 60 % of them right, and 28 % of those of held-out replies. The first 442 steps were run with
twice the masked codes and fewer of the answers, the last 820 as here; 29 minutes on two cores.
"""

from configs.speech_stages import voices
from configs.tiny_stages import REPLIED, SAID, SAID_MEDIA, sources, speaking

config = voices(speaking("read_model", REPLIED, batch_size=4, steps=1260, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 768,
    "data.media": SAID_MEDIA, "data.use_audio_in_video": True, "speech.masked": 0.15, "optimizer.warmup_steps": 20,
    "optimizer.weight_decay": 0.1, "average": 0.99}), rate=1.5e-3)
