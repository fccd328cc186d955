"""Instruction tuning through low-rank adapters, for one GPU.

    python -m tools.train configs/lora_7b.py --workdir out/lora_7b

Export it with `python -m tools.export out/lora_7b out/tuned_7b`: the adapters are merged. No run of this size has been
made, so the loss to expect is not known; tools.compile_report computes what it fits on, and how fast it should be.
"""

from configs.stages import low_rank, released

config = low_rank(released("7b"))
