"""A language model to start from, as Qwen2.5 is for the released sizes: a small random one learns the texts.

    python -m tools.train configs/language_smoke.py --workdir out/smoke/language

Expect EXPECT_language
"""

from configs.stages import LANGUAGE, TEXTS, smoke

config = smoke("model", train=LANGUAGE, **TEXTS)
