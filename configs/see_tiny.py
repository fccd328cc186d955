"""The third stage: tower and language model together learn to answer about pictures. Six examples fill a row.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("language_model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=700,
              **{"optimizer.rates": (("thinker/vision/*", 0.3),)})
