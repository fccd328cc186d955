"""Context continuation in small: the Talker learns the codes of spoken phrases, from a random start; Thinker frozen.

    python -m tools.train configs/talker_smoke.py --workdir out/smoke/talker

Expect a held-out loss of 1.17 nats a code after 200 steps and 0.60 after 1,200 (81 % right; 0.43 in training); 1.6 s a
step on two cores.
"""

from configs.speech_stages import MORE, smoke, talker

config = talker(smoke("voice_model", **MORE, steps=1200, eval_every=200), rate=2e-3)
