"""Direct preference optimization in small, on pairs that tools.make_preferences finds in the Talker's own speech.

    python -m tools.train configs/preference_smoke.py --workdir out/smoke/preference

Expect, of 595 pairs, a margin of 0.3 after 40 steps, and on held-out pairs 0.07 and a loss of 0.679: half a minute on
two cores. Word errors in 200 held-out phrases are 50 / 48 % before and 45 / 50 % after (two seeds, +-3). After 150
steps the pairs are learnt by heart: their margin is 1.7, the held-out loss 0.733, the errors 49 %.
"""

from configs.speech_stages import PAIRS, preference, smoke

config = preference(smoke("talker_model", PAIRS, steps=40, eval_every=10), rate=1e-4)
