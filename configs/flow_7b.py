"""The DiT alone, on codes that are given.

    python -m tools.train configs/flow_7b.py --workdir out/flow_7b

On N devices give --set mesh=data=N: the networks are small, and in parts would send more than they compute. No run of
this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import flow, released

config = flow(released("7b"))
