"""Stage 1, second half, in small: both encoders learn, before a frozen language model.

    python -m tools.train configs/encoders_smoke.py --workdir out/smoke/encoders

Expect EXPECT_encoders
"""

from configs.stages import encoders, smoke

config = encoders(smoke("adapters_model"), rate=1e-3)
