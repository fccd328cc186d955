"""The fourth stage: the audio tower learns to tell phones apart, told which of them sounds when.

    python -m tools.train configs/frames_tiny.py --workdir out/tiny/frames
"""

from configs.tiny_stages import LISTENING, LISTENING_MEDIA, TIMED, tiny

config = tiny("see_model", TIMED, LISTENING_MEDIA, length=304, batch_size=40, steps=250, objective="frames",
              **LISTENING)
