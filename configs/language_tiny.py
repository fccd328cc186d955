"""The second stage: a language model that is random so far learns to answer about what the frozen tower sees. Six
examples fill a row.

    python -m tools.train configs/language_tiny.py --workdir out/tiny/language

Expect a held-out loss of 0.722 / 0.603 / 0.575 nats a token after 250 / 500 / 700 steps; 20 minutes on two cores.
"""

from configs.stages import LANGUAGE
from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("contrast_model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=700, train=LANGUAGE)
