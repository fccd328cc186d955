"""The tenth stage: the Talker learns to say texts, by many voices, mostly of flite; the Thinker is frozen.

    python -m tools.train configs/talker_tiny.py --workdir out/tiny/talker
"""

from configs.speech_stages import talker
from configs.tiny_stages import CODED, speaking

config = talker(speaking("own_model", CODED, batch_size=6, steps=1500,
                         **{"optimizer.muon": ("talker/decoder/*",), "optimizer.muon_rate": 10.0}), rate=1e-3)
