"""The Talker learns the words that sentences hardly ever bring: any of them, in any order.

    python -m tools.train configs/drill_tiny.py --workdir out/tiny/drill

After lexicon it says the words that many sentences share, and of 160 drawn from the vocabulary one in four. This was
planned for 1,500 steps and ended after 501, with the rate still high, so that it comes down in converse, which goes on
with the same texts. Expect 0.15 / 0.13 nats a code on unseen sentences after 250 / 500 steps, up from 0.07, and 0.73 in
training; 10 minutes on two cores, as two devices.
"""

from configs.speech_stages import voices
from configs.tiny_stages import DRILLED, sources, speaking

config = voices(speaking("lexicon_model", DRILLED, batch_size=4, steps=501, **{
    "data.held_out": sources({"lexicon/spelt_": 1.0}, "held_out"), "data.length": 224, "data.speech_length": 768,
    "speech.masked": 0.1, "optimizer.warmup_steps": 20, "optimizer.weight_decay": 0.05, "optimizer.end": 0.75,
    "optimizer.muon": ("talker/*",), "optimizer.muon_rate": 2.0, "average": 0.99}), rate=1.3e-3)
