"""A codec encoder in small, that learns to read what a Token2Wav says with which it was not trained.

    python -m tools.train configs/distill_smoke.py --workdir out/smoke/distill

Expect 40 % of held-out codes read right after 100 steps and 69 % after 600 (chance: 0.4 %); a minute on two cores.
"""

from configs.speech_stages import SMALL, SPOKEN, distill, smoke

config = distill(smoke("frozen_model", SPOKEN, **SMALL), rate=1e-3)
