"""Its voice: the codes again, now mostly of what omni-tiny's own two voices say.

    python -m tools.train configs/recode_tiny.py --workdir out/tiny/recode
"""

from configs.speech_stages import codec
from configs.tiny_stages import ITS_OWN, speaking

config = codec(speaking("codec_model", ITS_OWN, batch_size=16, steps=2400, **{"optimizer.warmup_steps": 50}),
               rate=1e-3)
