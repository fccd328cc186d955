"""Pictures, from a random start: all of the Thinker learns. Six examples fill a row.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=1_900)
