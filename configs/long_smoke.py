"""Stage 3 in small: all parameters, rows four times as long.

    python -m tools.train configs/long_smoke.py --workdir out/smoke/long

Expect EXPECT_long
"""

from configs.stages import longer, smoke

config = longer(smoke("all_model"), rate=1e-3)
