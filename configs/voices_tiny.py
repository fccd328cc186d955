"""The last stage: the Talker speaks as its own two voices do, each text in the voice that it names.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices
"""

from configs.speech_stages import voices
from configs.tiny_stages import ITS_OWN, speaking

config = voices(speaking("talker_model", ITS_OWN, batch_size=6, steps=300), rate=5e-4)
