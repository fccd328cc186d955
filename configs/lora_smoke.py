"""Low-rank adapters in small.

    python -m tools.train configs/lora_smoke.py --workdir out/smoke/lora

Expect EXPECT_lora
"""

from configs.stages import low_rank, smoke

config = low_rank(smoke("long_model"), rate=3e-3)
