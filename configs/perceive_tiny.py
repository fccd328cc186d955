"""Hearing, seeing and watching at once, from a random start: all of the Thinker learns.

    python -m tools.train configs/perceive_tiny.py --workdir out/tiny/perceive
"""

from configs.tiny_stages import tiny

config = tiny("model")
