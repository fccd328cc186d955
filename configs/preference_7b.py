"""Direct preference optimization of the Talker.

    python -m tools.train configs/preference_7b.py --workdir out/preference_7b

No run of this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import preference, released

config = preference(released("7b"))
