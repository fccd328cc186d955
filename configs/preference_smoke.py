"""Direct preference optimization in small, on pairs that tools.make_preferences finds in the Talker's own speech.

    python -m tools.train configs/preference_smoke.py --workdir out/smoke/preference

From 595 pairs of phrases that the Talker (2,400 steps on 4,000 recordings) had been trained on, the margin was 0.3
after 40 steps, and on held-out pairs 0.07 with a loss of 0.679; word errors in 200 held-out recordings were 50 / 48 %
before and 45 / 50 % after (two seeds): no fall beyond the noise. After 150 steps these pairs were learnt by heart:
margin 1.7, held-out loss 0.733, errors 49 %. With pairs of phrases that it has not seen, as `make voice-smoke` makes
them now, it has not been run yet.
"""

from configs.speech_stages import PAIRS, preference, smoke

config = preference(smoke("talker_model", PAIRS, steps=40, eval_every=10), rate=5e-5)
