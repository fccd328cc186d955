"""A codec encoder in small, that learns to read what a Token2Wav says with which it was not trained.

    python -m tools.train configs/distill_smoke.py --workdir out/smoke/distill

EXPECT
"""

from configs.speech_stages import SMALL, SPOKEN, distill, smoke

config = distill(smoke("frozen_model", SPOKEN, **SMALL), rate=1e-3)
