"""Multi-speaker tuning in small: the voice that each example names.

    python -m tools.train configs/voices_smoke.py --workdir out/smoke/voices

EXPECT
"""

from configs.speech_stages import MORE, smoke, voices

config = voices(smoke("preference_model", steps=100, eval_every=50, **MORE), rate=5e-4)
