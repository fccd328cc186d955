"""Its voice: a codec encoder for weights that have lost theirs, and whose codes must stay as they are.

    python -m tools.train configs/distill_tiny.py --workdir out/tiny/distill

It learns to read what omni-tiny says of codes that are known. It was run on 460 replies, 9 minutes: answers, lists,
digits and sentences as those of the Makefile, and some sentences of `speaking`; 20 others were held out. Expect 40 % of
the held-out codes right and 2.9 nats a code; six minutes on one core of two. Codes that sound alike count as wrong:
configs/encode_tiny.py says how well it does.
"""

from configs.speech_stages import distill
from configs.tiny_stages import SAID, TINY, speaking
from omni_jax.training.config import Source

spoken = {part: (Source(f"{TINY}/{part}_spoken/manifest.jsonl"),) for part in ("train", "held_out")}
config = distill(speaking("frozen_model", SAID, batch_size=16, steps=700, **{
    "data.train": spoken["train"], "data.held_out": spoken["held_out"], "optimizer.muon": ("codec_encoder/*",),
    "optimizer.warmup_steps": 30, "average": 0.99}), rate=1e-3)
