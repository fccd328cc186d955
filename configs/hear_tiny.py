"""The fifth stage: the audio tower learns the phones of all voices, of which it is told the order.

    python -m tools.train configs/hear_tiny.py --workdir out/tiny/hear

Expect 1.13 nats a phone on the held-out voices, 0.98 in training, and falling; 9 minutes on two cores. (CTC of words at
this place was at 3.8 nats a token after 150 steps.)
"""

from configs.tiny_stages import LISTENING, LISTENING_MEDIA, SPELT, tiny

config = tiny("frames_model", SPELT, LISTENING_MEDIA, length=240, batch_size=40, steps=200, objective="ctc",
              **LISTENING)
