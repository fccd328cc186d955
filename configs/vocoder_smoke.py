"""BigVGAN in small.
"""

from configs.speech_stages import smoke, vocoder
from omni_jax.training.config import DiscriminatorConfig

config = vocoder(smoke("model", **{
    "speech.discriminators": DiscriminatorConfig((2, 3, 5), (8, 16, 32), ((512, 120, 480), (256, 60, 240)), 8)}), rate=5e-4)
