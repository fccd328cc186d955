"""The fifth stage: the audio tower learns the phones of all voices, of which it is told the order.

    python -m tools.train configs/hear_tiny.py --workdir out/tiny/hear
"""

from configs.tiny_stages import LISTENING, LISTENING_MEDIA, SPELT, tiny

config = tiny("frames_model", SPELT, LISTENING_MEDIA, length=240, batch_size=40, steps=200, objective="ctc",
              **LISTENING)
