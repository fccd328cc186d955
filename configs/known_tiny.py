"""The Talker learns by heart what it answers: each answer in one recording of each voice, whatever it is a reply to. A
trial: it is not shipped.

    python -m tools.train configs/known_tiny.py --workdir out/tiny/known

With several takes of an answer it can only learn their mixture, whose likeliest codes are no speech. Expect 0.60 / 0.41
/ 0.20 / 0.10 nats a code in training after 100 / 200 / 500 / 870 steps, where it was stopped; 37 minutes on one core of
two. It began with a Talker that knew the codec encoder's codes (1,286 steps on several takes of each answer). Held out
is what it has never said, which gets worse (3.0, 3.6).

At 60 % of the way to it from the Talker that is shipped, a grammar of single words hears 42 of 54 spoken answers right
(shipped: 37), and whisper-base 35 % of the words of 37 answers wrong (44 %), as of the recordings' own codes (33 %);
but of 59 spoken answers it hears 32 right instead of 36, and an "eight" was heard after "Twelve."
"""

from configs.speech_stages import voices
from configs.tiny_stages import KNOWN, SAID, SAID_MEDIA, sources, speaking

config = voices(speaking("voices_model", KNOWN, batch_size=4, steps=1400, **{
    "data.held_out": sources(SAID, "held_out"), "data.length": 640, "data.speech_length": 768,
    "data.media": SAID_MEDIA, "data.use_audio_in_video": True, "speech.masked": 0.1, "optimizer.warmup_steps": 20,
    "optimizer.muon": ("talker/*",), "optimizer.muon_rate": 2.0, "optimizer.weight_decay": 0.05, "average": 0.99}),
                rate=1.2e-3)
