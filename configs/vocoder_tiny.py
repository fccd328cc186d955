"""Its voice: BigVGAN, against small discriminators.

    python -m tools.train configs/vocoder_tiny.py --workdir out/tiny/vocoder

Expect a held-out distance of log mels of 0.45 / 0.36 / 0.28 / 0.23 after 250 / 500 / 1,000 / 1,750 steps; 58 minutes on
one core of two. The rest of the schedule has not been run yet.
"""

from configs.speech_stages import vocoder
from configs.tiny_stages import VOICED, speaking
from omni_jax.training.config import DiscriminatorConfig

JUDGES = DiscriminatorConfig((2, 3, 5), (16, 32, 64), ((512, 120, 480),), 8)

config = vocoder(speaking("codec_model", VOICED, steps=3600, batch_size=8, **{"speech.discriminators": JUDGES}),
                 rate=1e-3)
