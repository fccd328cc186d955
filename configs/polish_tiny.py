"""Its voice: the DiT once more, on the codes that its Talker says: answers, and words put together.

    python -m tools.train configs/polish_tiny.py --workdir out/tiny/polish

Expect a held-out flow loss of 0.384 / 0.374 / 0.367 / 0.363 / 0.357 after 250 / 500 / 750 / 1,000 / 1,500 steps, on
sentences put together that are not in training; 30 minutes on one core of two. Of what is put together so, whisper-base
then hears 12 % of the words wrong (24 unseen sentences, four steps of the solver).
"""

from configs.speech_stages import flow
from configs.tiny_stages import POLISHED, sources, speaking

config = flow(speaking("known_model", POLISHED, batch_size=16, steps=1500, **{
    "data.held_out": sources({"lexicon/joined_": 1.0}, "held_out"), "speech.named": True,
    "optimizer.muon": ("token2wav/dit/*",), "optimizer.muon_rate": 2.0, "optimizer.warmup_steps": 30}), rate=8e-4)
