"""The Talker learns by heart what it answers: each answer in one recording of each voice, whatever it is a reply to.

    python -m tools.train configs/known_tiny.py --workdir out/tiny/known

With several takes of an answer it can only learn their mixture, whose likeliest codes are no speech. Expect 3 / 0.3 /
0.12 / 0.08 nats a code in training after 30 / 290 / 540 / 1,050 steps; 43 minutes on one core of two. It began with a
Talker that had learnt the same by heart in the codes from before configs/attune_tiny.py (873 steps), and several takes
of each answer before that (1,286); as many more may be needed without them.

A grammar of single words then hears 40 of 54 spoken answers right (before attune and known: 37), whisper-base 26 % of
the words of 37 answers wrong (44 %). What it has not learnt by heart gets worse: of unseen sentences, of which none
could be understood before either, whisper-base hears more words wrong than there are (before: 85 %).
"""

from configs.speech_stages import voices
from configs.tiny_stages import KNOWN, replying

config = voices(replying("attune_model", KNOWN, steps=1050, **{
    "data.held_out": (), "speech.masked": 0.1, "optimizer.weight_decay": 0.05}), rate=1.2e-3)
