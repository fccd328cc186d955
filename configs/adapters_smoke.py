"""Stage 1, first half, in small: the audio projection and the vision merger learn, before a frozen language model.

    python -m tools.train configs/adapters_smoke.py --workdir out/smoke/adapters

Expect a held-out loss of 4.48 after 25 steps and 3.69 after 150: the frozen language model has never been asked about
media, so the adapters alone teach it little more than the kind of answer; a minute on two cores.
"""

from configs.stages import adapters, smoke

config = adapters(smoke("language_model"), rate=5e-3)
