"""Stage 1, second half, in small: both encoders learn, before a frozen language model.

    python -m tools.train configs/encoders_smoke.py --workdir out/smoke/encoders

Expect a held-out loss of 3.58 after 25 steps and 3.28 after 150, still limited by the frozen language model; a minute
and a half on two cores.
"""

from configs.stages import encoders, smoke

config = encoders(smoke("adapters_model"), rate=1e-3)
