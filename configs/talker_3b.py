"""Context continuation: the Talker learns the next code, the speaker being drawn apart from the text.

    python -m tools.train configs/talker_3b.py --workdir out/talker_3b

No run of this size has been made, so the loss to expect is not known; tools.compile_report computes what it fits on.
"""

from configs.speech_stages import released, talker

config = talker(released("3b"))
