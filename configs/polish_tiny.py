"""Its voice: the DiT once more, on the codes that its Talker says: answers, and words put together.

    python -m tools.train configs/polish_tiny.py --workdir out/tiny/polish

It was run in two parts, the rate begun anew. Expect a held-out flow loss of 0.384 / 0.374 / 0.363 / 0.357 after 250 /
500 / 1,000 / 1,500 steps at 8e-4, on sentences put together that are not in training; and with another seed, so other
noise, of 0.428 / 0.412 / 0.400 / 0.394 after 350 / 1,400 / 2,450 / 4,300 more at 7e-4, two thirds of whose examples
were such sentences; 30 and 96 minutes on one core of two. Of what is put together so, whisper-base heard 12 % of the
words wrong after the first part and 9 % after the second (24 unseen sentences, three steps of the solver).
"""

from configs.speech_stages import flow
from configs.tiny_stages import POLISHED, sources, speaking

config = flow(speaking("known_model", POLISHED, batch_size=16, steps=5800, **{
    "data.held_out": sources({"lexicon/joined_": 1.0}, "held_out"), "speech.named": True,
    "optimizer.muon": ("token2wav/dit/*",), "optimizer.muon_rate": 2.0, "optimizer.warmup_steps": 30}), rate=8e-4)
