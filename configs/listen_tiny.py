"""The seventh stage: as the sixth, mostly of what is heard, each recording in more ways.

    python -m tools.train configs/listen_tiny.py --workdir out/tiny/listen
"""

from configs.stages import LANGUAGE
from configs.tiny_stages import LISTENED, PERCEIVED_MEDIA, tiny

config = tiny("perceive_model", LISTENED, PERCEIVED_MEDIA, length=336, batch_size=12, steps=560, eval_every=280,
              train=(*LANGUAGE, "thinker/audio/*"), **{"optimizer.warmup_steps": 50})
