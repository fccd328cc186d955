"""Its voice: codes of speech, and the DiT that says them in the voice of a reference.

    python -m tools.train configs/codec_tiny.py --workdir out/tiny/codec

Expect a held-out flow loss of 1.44 / 0.87 / 0.63 / 0.64 after 250 / 500 / 1,000 / 1,300 steps, perplexity of the codes
near 800 of 1,024; 25 minutes on one core of two.
"""

from configs.speech_stages import codec
from configs.tiny_stages import TO_BE_CODED, speaking

config = codec(speaking("answered_model", TO_BE_CODED, batch_size=16, steps=1300), rate=1e-3)
