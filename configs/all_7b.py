"""Stage 2: all parameters of the Thinker, on mixed data.

    python -m tools.train configs/all_7b.py --workdir out/all_7b

Start it from the export of the encoders' run, by --set model=DIR. No run of this size has been made, so the loss to
expect is not known; tools.compile_report computes what it fits on, and how fast it should be.
"""

from configs.stages import everything, released

config = everything(released("7b"))
