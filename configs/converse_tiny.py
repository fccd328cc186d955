"""The Talker answers again what it hears and sees, and goes on reading: lexicon kept its replies to writing alone.

    python -m tools.train configs/converse_tiny.py --workdir out/tiny/converse

It was run in two parts, the rate begun anew: 480 steps with a share of answers of 0.7, then 300 with 0.85. Expect
0.09 / 0.11 nats a code on unseen sentences after 480 / 780, up from 0.07, and 0.15 in training; 21 minutes on two
cores, as two devices. Of spoken questions a grammar of single words then hears 39 of 54 right (after lexicon 29; with
the Talker of known 40), and of unseen sentences whisper-base 49 % of the words wrong (after lexicon 45).
"""

from configs.speech_stages import voices
from configs.tiny_stages import CONVERSED, replying, sources

config = voices(replying("lexicon_model", CONVERSED, steps=780, **{
    "data.held_out": sources({"lexicon/spelt_": 1.0}, "held_out"), "speech.masked": 0.1,
    "optimizer.weight_decay": 0.05}), rate=6e-4)
