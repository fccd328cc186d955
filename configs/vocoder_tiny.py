"""
    python -m tools.train configs/vocoder_tiny.py --workdir out/tiny/vocoder
"""

from configs.speech_stages import vocoder
from configs.tiny_stages import VOICED, speaking
from omni_jax.training.config import DiscriminatorConfig

JUDGES = DiscriminatorConfig((2, 3, 5), (16, 32, 64), ((512, 120, 480),), 8)

config = vocoder(speaking("codec_model", VOICED, steps=3600, batch_size=8, **{"speech.discriminators": JUDGES}),
                 rate=1e-3)
