"""Stage 1, first half: the audio projection and the vision merger learn, before a frozen language model.

    python -m tools.train configs/adapters_7b.py --workdir out/adapters_7b

Qwen2.5's, Qwen2.5-VL's and Whisper's own weights are taken with --set language=DIR, --set vision=DIR and --set
audio=DIR. No run of this size has been made, so the loss to expect is not known; tools.compile_report computes what it
fits on, and how fast it should be.
"""

from configs.stages import adapters, released

config = adapters(released("7b"))
