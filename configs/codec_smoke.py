"""A new voice stack in small.
"""

from configs.speech_stages import codec, smoke

config = codec(smoke("model", **{"speech.encoder_width": 128, "speech.encoder_layers": 4}), rate=1e-3)
