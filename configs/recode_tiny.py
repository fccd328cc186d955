"""Its voice: the codes again, now mostly of what omni-tiny's own two voices say.

    python -m tools.train configs/recode_tiny.py --workdir out/tiny/recode

Expect a held-out flow loss of 0.627 / 0.589 / 0.576 / 0.575 after 500 / 1,000 / 1,500 / 2,400 steps, 0.507 in training,
a perplexity of the codes of 826 of 1,024; 48 minutes on one core of two.
"""

from configs.speech_stages import codec
from configs.tiny_stages import ITS_OWN, speaking

config = codec(speaking("vocoder_model", ITS_OWN, batch_size=16, steps=2400, **{"optimizer.warmup_steps": 50}),
               rate=1e-3)
