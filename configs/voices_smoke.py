"""Multi-speaker tuning in small: the voice that each example names.

    python -m tools.train configs/voices_smoke.py --workdir out/smoke/voices

EXPECT
"""

from configs.speech_stages import CODED, smoke, voices

config = voices(smoke("talker_model", CODED, steps=200, eval_every=50), rate=5e-4)
