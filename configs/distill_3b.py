"""The codec encoder learns to read what a frozen Token2Wav says.

    python -m tools.train configs/distill_3b.py --workdir out/distill_3b

On N devices give --set mesh=data=N: the networks are small, and in parts would send more than they compute. No run of
this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import distill, released

config = distill(released("3b"))
