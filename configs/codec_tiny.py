"""The seventh stage: codes of speech, and the DiT that says them in the voice of a reference.

    python -m tools.train configs/codec_tiny.py --workdir out/tiny/codec
"""

from configs.speech_stages import codec
from configs.tiny_stages import TO_BE_CODED, speaking

config = codec(speaking("perceive_model", TO_BE_CODED, batch_size=16, steps=2000), rate=1e-3)
