"""Pictures, and videos with their sound, from a random start: all of the Thinker learns.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("model", SEEN, SEEN_MEDIA)
