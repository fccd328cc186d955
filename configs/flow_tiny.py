"""Its voice: the DiT says codes that are given, mostly those of omni-tiny's own two voices.

    python -m tools.train configs/flow_tiny.py --workdir out/tiny/flow

Expect a held-out loss of 0.620 / 0.604 / 0.596 after 200 / 400 / 600 steps; 11 minutes on one core of two.
"""

from configs.speech_stages import flow
from configs.tiny_stages import MOSTLY_ITS_OWN, speaking

config = flow(speaking("vocoder_model", MOSTLY_ITS_OWN, batch_size=16, steps=600, eval_every=200), rate=5e-4)
