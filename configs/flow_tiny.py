"""Its voice: the DiT again, on the codes that its Talker learns, in the two voices that it has.

    python -m tools.train configs/flow_tiny.py --workdir out/tiny/flow

Expect a held-out flow loss of 0.493 / 0.473 / 0.453 / 0.441 / 0.432 after 460 / 920 / 1,840 / 2,760 / 4,600 steps, 0.39
in training; 103 minutes on one core of two. Adam instead of Muon learns slower: 0.521 instead of 0.509 after 240 steps.
"""

from configs.speech_stages import flow
from configs.tiny_stages import CODED, SAID, sources, speaking

config = flow(speaking("own_model", CODED, batch_size=16, steps=4600, **{
    "data.held_out": sources(SAID, "held_out"), "speech.named": True,
    "optimizer.muon": ("token2wav/dit/*",), "optimizer.muon_rate": 2.0, "optimizer.warmup_steps": 50}), rate=1e-3)
