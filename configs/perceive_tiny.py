"""Hearing beside seeing and watching: all of the Thinker learns.

    python -m tools.train configs/perceive_tiny.py --workdir out/tiny/perceive
"""

from configs.tiny_stages import PERCEIVED, PERCEIVED_MEDIA, tiny

config = tiny("see_model", PERCEIVED, PERCEIVED_MEDIA, steps=10_000)
