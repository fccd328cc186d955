"""Stage 2 in small: all parameters learn.

    python -m tools.train configs/all_smoke.py --workdir out/smoke/all

Expect a held-out loss of 0.85 after 25 steps and 0.24 after 150 (90 % of the tokens right); a minute and a half on two
cores.
"""

from configs.stages import everything, smoke

config = everything(smoke("encoders_model"), rate=2e-3)
