"""Stage 1, first half, in small: the audio projection and the vision merger learn, before a frozen language model.

    python -m tools.train configs/adapters_smoke.py --workdir out/smoke/adapters

Expect EXPECT_adapters
"""

from configs.stages import adapters, smoke

config = adapters(smoke("language_model"), rate=5e-3)
