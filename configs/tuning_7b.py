"""Instruction tuning: all parameters of the Thinker on conversations in ChatML.

    python -m tools.train configs/tuning_7b.py --workdir out/tuning_7b

Export it with `python -m tools.export out/tuning_7b out/tuned_7b`: it speaks as before. No run of this size has been
made, so the loss to expect is not known; tools.compile_report computes what it fits on, and how fast it should be.
"""

from configs.stages import released, tuning

config = tuning(released("7b"))
