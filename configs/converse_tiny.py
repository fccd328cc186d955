"""The Talker answers again what it hears and sees, and goes on with reading and with the words of drill.

    python -m tools.train configs/converse_tiny.py --workdir out/tiny/converse

It was run in three parts, the rate begun anew in each: 1,480 steps at 1e-3 on two cores, as two devices, in 38 minutes,
then 2,450 and 2,500 at 6e-4 on one core in 103 and 95, the last with shares 0.4, 0.4 and 0.2 instead of 0.5, 0.3 and
0.2; CONVERSED has their mean. Expect 0.141 / 0.116 / 0.092 / 0.081 nats a code on unseen sentences after 250 / 500 /
1,000 / 1,480 steps, 0.094 / 0.078 / 0.065 / 0.059 after 350 / 1,050 / 1,750 / 2,450 more, then 0.070 / 0.057 / 0.050 /
0.043 after 350 / 1,050 / 1,750 / 2,500; in training 0.33, 0.27 and 0.25 at the parts' ends. Of unseen sentences
whisper-base then hears 32 % of the words wrong (after lexicon 45, before the third part 32 as well), and of spoken
questions a grammar of single words hears 40 of 54 answered right in Heart's voice and 47 in Michael's.
"""

from configs.speech_stages import voices
from configs.tiny_stages import CONVERSED, replying, sources

config = voices(replying("drill_model", CONVERSED, steps=6430, **{
    "data.held_out": sources({"lexicon/spelt_": 1.0}, "held_out"), "speech.masked": 0.1,
    "optimizer.weight_decay": 0.05, "optimizer.end": 0.04}), rate=1e-3)
