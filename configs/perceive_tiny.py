"""The sixth stage: the language model learns to answer about what it hears as well, and the audio tower with it.

    python -m tools.train configs/perceive_tiny.py --workdir out/tiny/perceive

Expect a held-out loss of 0.701 / 0.628 / 0.568 nats a token after 250 / 500 / 760 steps; 48 minutes on two cores.
"""

from configs.stages import LANGUAGE
from configs.tiny_stages import PERCEIVED, PERCEIVED_MEDIA, tiny

config = tiny("hear_model", PERCEIVED, PERCEIVED_MEDIA, length=336, batch_size=12, steps=760,
              train=(*LANGUAGE, "thinker/audio/*"), **{"optimizer.rates": (("thinker/audio/*", 0.5),)})
