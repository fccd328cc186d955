"""Its voice: the codec encoder of distill_tiny.py goes on with recordings, of codes that the DiT speaks best.

    python -m tools.train configs/encode_tiny.py --workdir out/tiny/encode

Expect a flow loss of 0.37 before the first step already, 0.361 / 0.354 after 100 / 250 (26 held-out recordings of
answers), and vectors that come near to the codes: a commitment of 8.99, then 0.93 / 0.15. It was stopped after 261
steps; five minutes on one core of two.
"""

from configs.speech_stages import encode
from configs.tiny_stages import RECORDED, speaking

config = encode(speaking("distill_model", RECORDED, batch_size=16, steps=400, **{
    "speech.named": True, "optimizer.muon": ("codec_encoder/*",), "optimizer.warmup_steps": 20, "average": 0.98}),
                rate=5e-4)
