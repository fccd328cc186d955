"""The sixth stage: all of the Thinker learns to answer about what it hears, sees and reads.

    python -m tools.train configs/perceive_tiny.py --workdir out/tiny/perceive
"""

from configs.tiny_stages import PERCEIVED, PERCEIVED_MEDIA, tiny

config = tiny("hear_model", PERCEIVED, PERCEIVED_MEDIA, length=336, batch_size=12, steps=900,
              **{"optimizer.rates": (("thinker/vision/*", 0.3), ("thinker/audio/*", 0.5))})
