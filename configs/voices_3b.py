"""Multi-speaker tuning of the Talker: the voice that each example names.

    python -m tools.train configs/voices_3b.py --workdir out/voices_3b

No run of this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import released, voices

config = voices(released("3b"))
