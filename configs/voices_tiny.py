"""The Talker replies in its two voices to what omni-tiny hears and sees, on which the vectors that it reads depend.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices

Expect 1.15 nats a code, 67 % of them right, but 25 % of those of held-out replies, which were 28 % right 360 steps
before: what it says often it learns by heart. It was run in four parts, the rate begun anew in each: 442 steps with
twice the masked codes and fewer of the answers, 820 as here, and 750 and 360 more when the Thinker had learnt
watch_tiny.py, with replies to videos; 55 minutes on two cores.
"""

from configs.speech_stages import voices
from configs.tiny_stages import REPLIED, SAID, SAID_MEDIA, sources, speaking

config = voices(speaking("read_model", REPLIED, batch_size=4, steps=2370, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 768,
    "data.media": SAID_MEDIA, "data.use_audio_in_video": True, "speech.masked": 0.15, "optimizer.warmup_steps": 20,
    "optimizer.weight_decay": 0.1, "optimizer.muon": ("talker/*",), "optimizer.muon_rate": 2.0, "average": 0.99}),
                rate=1.5e-3)
