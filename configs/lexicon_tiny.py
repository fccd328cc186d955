"""The Talker learns to read, from sentences in which a word always has the same codes. A trial: it is not shipped.

    python -m tools.train configs/lexicon_tiny.py --workdir out/tiny/lexicon

There is nothing to guess in their codes, so it is not by heart that it learns them: expect the same loss on unseen
sentences as in training, 1.63 / 1.18 / 0.90 / 0.74 / 0.65 nats a code after 290 / 580 / 870 / 1,160 / 1,450 steps,
still falling; 42 minutes on two cores, as two devices (see talker_tiny.py). Speaking alone it begins unseen sentences
rightly and then loses its place: whisper-base hears 87 % of their words wrong (40), and 43 % of the right codes' own.
"""

from configs.speech_stages import voices
from configs.tiny_stages import FROM_LEXICON, replying, sources

config = voices(replying("known_model", FROM_LEXICON, steps=1450, **{
    "data.held_out": sources({"lexicon/spelt_": 1.0}, "held_out"), "speech.masked": 0.1,
    "optimizer.weight_decay": 0.05}), rate=1.5e-3)
