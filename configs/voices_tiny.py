"""The Talker replies in its two voices to what omni-tiny hears and sees, on which the vectors that it reads depend.

    python -m tools.train configs/voices_tiny.py --workdir out/tiny/voices

Expect 1.6 nats a code and 59 % of them right, of held-out replies 3.3 nats and 28 %. It was run in five parts, the rate
begun anew in each: 442 steps with twice the masked codes and fewer of the answers, 820 and, when the Thinker had learnt
watch_tiny.py, 1,110 more without Muon and with fewer spliced sentences, after which it knew its answers by heart (1.15
nats, held-out 3.8); and 780 as here when it had learnt answer_tiny.py. 85 minutes on two cores.
"""

from configs.speech_stages import voices
from configs.tiny_stages import REPLIED, SAID, replying, sources

config = voices(replying("read_model", REPLIED, steps=3150, **{
    "data.held_out": sources(SAID, "held_out"), "speech.masked": 0.15, "optimizer.weight_decay": 0.1}), rate=1.5e-3)
