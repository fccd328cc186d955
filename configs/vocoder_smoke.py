"""BigVGAN in small.
"""

from configs.speech_stages import smoke, vocoder
from omni_jax.training.config import DiscriminatorConfig

JUDGES = DiscriminatorConfig((2, 3), (8, 16, 32), ((512, 120, 480),), 8)

config = vocoder(smoke("model", **{"speech.discriminators": JUDGES, "batch_size": 4}), rate=1e-3)
