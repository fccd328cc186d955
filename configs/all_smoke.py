"""Stage 2 in small: all parameters learn.

    python -m tools.train configs/all_smoke.py --workdir out/smoke/all

Expect EXPECT_all
"""

from configs.stages import everything, smoke

config = everything(smoke("encoders_model"), rate=2e-3)
