"""The fourth stage: the audio tower learns to tell phones apart, told which of them sounds when.

    python -m tools.train configs/frames_tiny.py --workdir out/tiny/frames

Expect 77 % of the held-out moments right; 10 minutes on two cores. CTC from random weights instead had not left its
plateau after 210 steps of phones, or 290 of words.
"""

from configs.tiny_stages import LISTENING, LISTENING_MEDIA, TIMED, tiny

config = tiny("see_model", TIMED, LISTENING_MEDIA, length=304, batch_size=40, steps=250, objective="frames",
              **LISTENING)
