"""Stage 1, second half: both encoders learn, before a frozen language model.

    python -m tools.train configs/encoders_3b.py --workdir out/encoders_3b

Start it from the export of the adapters' run (`python -m tools.export out/adapters_3b out/adapters_3b_model`), by --set
model=DIR. No run of this size has been made, so the loss to expect is not known; tools.compile_report computes what it
fits on, and how fast it should be.
"""

from configs.stages import encoders, released

config = encoders(released("3b"))
