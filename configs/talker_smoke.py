"""Context continuation in small: the Talker learns the codes of spoken phrases, from a random start; Thinker frozen.

    python -m tools.train configs/talker_smoke.py --workdir out/smoke/talker

Expect a held-out loss of 1.55 nats a code after 100 steps and 0.70 after 600 (78 % right); eight minutes on two cores.
"""

from configs.speech_stages import MORE, smoke, talker

config = talker(smoke("voice_model", **MORE, steps=2400, eval_every=200), rate=2e-3)
