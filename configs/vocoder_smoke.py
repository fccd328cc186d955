"""BigVGAN in small.
"""

from configs.speech_stages import smoke, vocoder
from omni_jax.training.config import DiscriminatorConfig

JUDGES = DiscriminatorConfig((2, 3, 5), (8, 16, 32), ((512, 120, 480), (256, 60, 240)), 8)

config = vocoder(smoke("model", **{"speech.discriminators": JUDGES}), rate=5e-4)
