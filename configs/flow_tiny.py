"""The ninth stage: the DiT says the codes of its own two voices.

    python -m tools.train configs/flow_tiny.py --workdir out/tiny/flow
"""

from configs.speech_stages import flow
from configs.tiny_stages import ITS_OWN, speaking

config = flow(speaking("vocoder_model", ITS_OWN, batch_size=16, steps=500), rate=5e-4)
