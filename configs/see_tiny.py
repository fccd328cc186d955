"""Pictures and questions about them: all of the Thinker learns, its tower at a slower rate. Six fill a row.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("contrast_model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=1_500,
              **{"optimizer.rates": (("thinker/vision/*", 0.3),)})
