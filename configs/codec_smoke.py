"""A new voice stack in small.
"""

from configs.speech_stages import codec, smoke

SMALL = {"speech.encoder_width": 128, "speech.encoder_layers": 4, "speech.revive": 0.1}

config = codec(smoke("model", **SMALL), rate=1e-3)
