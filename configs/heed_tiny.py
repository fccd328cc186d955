"""The audio tower alone learns on, from speech of which bands and stretches are masked (SpecAugment). A trial, which is
not shipped.

    python -m tools.train configs/heed_tiny.py --workdir out/tiny/heed

Expect a held-out loss of 0.276 / 0.260 / 0.245 / 0.244 / 0.247 nats a token after 200 / 400 / 600 / 800 / 1,000 steps;
100 minutes on one core of two, from the weights that are shipped and 1,710 recordings of Kokoro. At the end it hears as
well as before (16.5 % of all held-out words wrong, before 16.2) and answers less (85 % of the spoken questions, before
90). Half of the way it hears better (commands 6.1 %, digits 13.2 and 14.7 in noise, sentences 12.9 and 26.6; before
9.8, 13.7, 18.6, 14.3, 28.1), but answers 88 %, and in noise 71 instead of 76.
"""

from configs.tiny_stages import HEEDED, HEEDED_MEDIA, sources, tiny
from omni_jax.training.config import SpecAugmentConfig

config = tiny("answered_model", HEEDED, HEEDED_MEDIA, length=704, batch_size=6, steps=1000,
              train=("thinker/audio/*",), **{
    "data.spec_augment": SpecAugmentConfig(bands=2, band=20, spans=0.8, span=20),
    "data.held_out": sources(dict.fromkeys(("hearing/", "watching/", "asking/"), 1.0), "held_out"),
    "optimizer.learning_rate": 7e-4, "optimizer.warmup_steps": 20, "optimizer.muon": ("thinker/audio/*",),
    "average": 0.99})
