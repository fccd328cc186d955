"""BigVGAN learns to sound recorded mels, against its discriminators.

    python -m tools.train configs/vocoder_7b.py --workdir out/vocoder_7b

On N devices give --set mesh=data=N: the networks are small, and in parts would send more than they compute. No run of
this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import released, vocoder

config = vocoder(released("7b"))
