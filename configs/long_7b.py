"""Stage 3: all parameters, rows of 32,768 tokens.

    python -m tools.train configs/long_7b.py --workdir out/long_7b

Start it from the export of stage 2, by --set model=DIR. No run of this size has been made, so the loss to expect is not
known; tools.compile_report computes what it fits on, and how fast it should be.
"""

from configs.stages import longer, released

config = longer(released("7b"))
