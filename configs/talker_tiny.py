"""The Talker learns to say what omni-tiny answers, in its two voices, asked in writing; the Thinker is frozen.

    python -m tools.train configs/talker_tiny.py --workdir out/tiny/talker

It learns the recordings by heart: 2.9 / 2.1 / 1.3 / 0.8 nats a code after 200 / 500 / 800 / 1,000 steps, from a
Talker that had learnt 811 steps of other codes, but 3.5 on replies held out after 250, and more afterwards. To read
is learnt in read_tiny.py. 27 minutes on two cores, as two devices (XLA_FLAGS=--xla_force_host_platform_device_count=2
and --set mesh=data=2, 1.4 times as fast as one).
"""

from configs.speech_stages import voices
from configs.tiny_stages import SAID, speaking

config = voices(speaking("flow_model", SAID, batch_size=4, steps=1500, **{
    "data.length": 480, "data.speech_length": 1024, "optimizer.warmup_steps": 40, "optimizer.weight_decay": 0.1,
    "average": 0.0}), rate=3e-3)
