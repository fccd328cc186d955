"""The Talker learns to read, from sentences in which a word always has the same codes.

    python -m tools.train configs/lexicon_tiny.py --workdir out/tiny/lexicon

There is nothing to guess in their codes, so it is not by heart that it learns them: expect 1.14 / 0.58 / 0.25 / 0.15 /
0.11 / 0.08 / 0.07 nats a code on unseen sentences after 250 / 500 / 1,000 / 1,500 / 2,000 / 2,500 / 3,000 steps; 37
minutes on one core for the first 1,257 and 34 on two, as two devices (see talker_tiny.py), for the rest. After 1,000
it keeps its place in the text, but says words that begin alike for one another: whisper-base hears 66 % of the words
wrong, and after all of them 45 % (24 and 40 unseen sentences, four steps of the solver; before: 102 %).
"""

from configs.speech_stages import voices
from configs.tiny_stages import SPOKEN, sources, speaking

config = voices(speaking("polish_model", SPOKEN, batch_size=4, steps=3000, **{
    "data.held_out": sources({"lexicon/spelt_": 1.0}, "held_out"), "data.length": 224, "data.speech_length": 768,
    "speech.masked": 0.1, "optimizer.warmup_steps": 30, "optimizer.weight_decay": 0.05,
    "optimizer.muon": ("talker/*",), "optimizer.muon_rate": 2.0, "average": 0.99}), rate=1.5e-3)
