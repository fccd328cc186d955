"""Its voice: the DiT again, on the codes that its Talker learns, in the two voices that it has.

    python -m tools.train configs/flow_tiny.py --workdir out/tiny/flow
"""

from configs.speech_stages import flow
from configs.tiny_stages import CODED, SAID, sources, speaking

config = flow(speaking("own_model", CODED, batch_size=16, steps=4600, **{
    "data.held_out": sources(SAID, "held_out"), "speech.named": True,
    "optimizer.muon": ("token2wav/dit/*",), "optimizer.muon_rate": 2.0, "optimizer.warmup_steps": 50}), rate=1e-3)
