"""The Talker learns by heart what it answers: each answer in one recording of each voice, whatever it is a reply to.

    python -m tools.train configs/known_tiny.py --workdir out/tiny/known

With several takes of an answer it can only learn their mixture, whose likeliest codes are no speech. Expect
0.60 / 0.41 / 0.20 / 0.10 nats a code in training after 100 / 200 / 500 / 870 steps, where it was stopped, for the next
stage goes on with it; 37 minutes on one core of two. Held out is what it has never said, which gets worse (3.0, 3.6).
"""

from configs.speech_stages import voices
from configs.tiny_stages import KNOWN, SAID, SAID_MEDIA, sources, speaking

config = voices(speaking("voices_model", KNOWN, batch_size=4, steps=1400, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 768,
    "data.media": SAID_MEDIA, "data.use_audio_in_video": True, "speech.masked": 0.1, "optimizer.warmup_steps": 20,
    "optimizer.muon": ("talker/*",), "optimizer.muon_rate": 2.0, "optimizer.weight_decay": 0.05, "average": 0.99}),
                rate=1.2e-3)
