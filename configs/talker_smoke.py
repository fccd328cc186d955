"""Context continuation in small: the Talker learns the codes of spoken phrases, from a random start; Thinker frozen.

    python -m tools.train configs/talker_smoke.py --workdir out/smoke/talker

Expect a held-out loss of 1.08 nats a code after 200 steps and 0.49 after 1,600 (85 % right; 0.29 in training); 0.7 to
1 s a step on two cores.
"""

from configs.speech_stages import MORE, smoke, talker

config = talker(smoke("voice_model", **MORE, steps=1600, batch_size=4, eval_every=200), rate=2e-3)
