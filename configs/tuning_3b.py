"""Instruction tuning: all parameters of the Thinker on conversations in ChatML.

    python -m tools.train configs/tuning_3b.py --workdir out/tuning_3b

Export it with `python -m tools.export out/tuning_3b out/tuned_3b`: it speaks as before. No run of this size has been
made, so the loss to expect is not known; tools.compile_report computes what it fits on, and how fast it should be.
"""

from configs.stages import released, tuning

config = tuning(released("3b"))
