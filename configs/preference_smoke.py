"""Direct preference optimization in small, on pairs that tools.make_preferences finds in the Talker's own speech.

    python -m tools.train configs/preference_smoke.py --workdir out/smoke/preference

EXPECT
"""

from configs.speech_stages import PAIRS, preference, smoke

config = preference(smoke("talker_model", PAIRS, steps=40, eval_every=10), rate=5e-5)
