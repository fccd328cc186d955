"""A new voice stack: codec encoder, code table, DiT and speaker encoder learn together.

    python -m tools.train configs/codec_3b.py --workdir out/codec_3b

On N devices give --set mesh=data=N: the networks are small, and in parts would send more than they compute. No run of
this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import codec, released

config = codec(released("3b"))
