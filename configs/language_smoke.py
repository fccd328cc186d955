"""A language model to start from, as Qwen2.5 is for the released sizes: a small random one learns the texts.

    python -m tools.train configs/language_smoke.py --workdir out/smoke/language

Expect a held-out loss of 2.50 after 25 steps and 0.54 after 150 (81 % of the tokens right); half a minute on two cores.
"""

from configs.stages import LANGUAGE, TEXTS, smoke

config = smoke("model", train=LANGUAGE, **TEXTS)
