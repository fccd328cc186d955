"""Its voice: codec encoder, code table and DiT together once more, on recordings of what it answers.

    python -m tools.train configs/attune_tiny.py --workdir out/tiny/attune

Expect a held-out flow loss of 0.354 / 0.347 / 0.342 / 0.336 / 0.332 after 300 / 600 / 900 / 1,500 / 2,300 steps (0.354
before; 26 recordings of answers), a perplexity of the codes of 700 of 1,024; 59 minutes on one core of two. The codes
become others: 42 % of those of its answers stayed the same, so the Talker has to learn them anew. Of 37 answers made
codes and spoken again whisper-base then hears 22 % of the words wrong, instead of 29, and about 12 of the recordings.
"""

from configs.speech_stages import codec
from configs.tiny_stages import ATTUNED, RECORDED, sources, speaking

config = codec(speaking("voices_model", ATTUNED, batch_size=16, steps=2300, **{
    "data.held_out": sources(RECORDED, "held_out"), "speech.named": True, "speech.revive": 0.0,
    "optimizer.muon": ("codec_encoder/*", "token2wav/dit/*"), "optimizer.muon_rate": 2.0, "optimizer.warmup_steps": 20,
    "average": 0.99}), rate=7e-4)
