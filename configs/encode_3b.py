"""The codec encoder goes on with recordings: it learns which of its codes a frozen DiT speaks best.

    python -m tools.train configs/encode_3b.py --workdir out/encode_3b

On N devices give --set mesh=data=N: the networks are small, and in parts would send more than they compute. No run of
this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import encode, released

config = encode(released("3b"))
