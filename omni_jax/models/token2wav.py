"""Token2Wav: codes to mel (DiT), mel to waveform (BigVGAN)."""

from typing import Any

from flax import nnx

from omni_jax.config import Token2WavConfig
from omni_jax.models.bigvgan import BigVGAN
from omni_jax.models.dit import DiT


class Token2Wav(nnx.Module):
    """The two networks, as they lie in a checkpoint. `scanned`: whether the DiT's layers are stacked."""

    def __init__(self, config: Token2WavConfig, rngs: nnx.Rngs, dtype: Any, scanned: bool = True):
        self.dit = DiT(rngs, config.dit_config, dtype, scanned)
        self.bigvgan = BigVGAN(rngs, config.bigvgan_config, dtype)
