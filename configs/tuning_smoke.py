"""Instruction tuning in small.

    python -m tools.train configs/tuning_smoke.py --workdir out/smoke/tuning

Expect EXPECT_tuning
"""

from configs.stages import smoke, tuning

config = tuning(smoke("long_model"), rate=5e-4)
