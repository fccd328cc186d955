"""A new voice stack in small: codes of spoken phrases, and the DiT that says them.

    python -m tools.train configs/codec_smoke.py --workdir out/smoke/codec

EXPECT
"""

from configs.speech_stages import SMALL, codec, smoke

config = codec(smoke("model", **SMALL, steps=1500, eval_every=250), rate=1e-3)
