"""Low-rank adapters in small.

    python -m tools.train configs/lora_smoke.py --workdir out/smoke/lora

Expect a held-out loss of 0.26 after 25 steps and 0.23 after 150; a minute on two cores.
"""

from configs.stages import VIDEOS, low_rank, smoke

config = low_rank(smoke("long_model", **VIDEOS), rate=3e-3)
