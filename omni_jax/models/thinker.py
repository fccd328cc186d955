"""The Thinker: encoders and decoder that turn what was read, heard and seen into text (paper section 2.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import ThinkerConfig
from omni_jax.models.audio_encoder import AudioEncoder
from omni_jax.models.decoder import Decoder
from omni_jax.models.layers import Embedding, Linear, logits
from omni_jax.models.vision_encoder import VisionEncoder


class Thinker(nnx.Module):
    """Source: Qwen2_5OmniThinkerForConditionalGeneration. Its parts are called one by one, each under jit.

    scanned: whether layers are stacked and scanned (see layers.each).
    """

    def __init__(self, config: ThinkerConfig, rngs: nnx.Rngs, dtype: Any = jnp.float32, scanned: bool = True):
        text = config.text_config
        self.audio = AudioEncoder(rngs, config.audio_config, dtype, scanned)
        self.vision = VisionEncoder(rngs, config.vision_config, dtype, scanned)
        self.embed = Embedding(rngs, text.vocab_size, text.hidden_size, dtype)
        self.decoder = Decoder(rngs, text, dtype, scanned)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(rngs, (text.hidden_size,), (text.vocab_size,), ("vocab", "embed"), dtype)

    @property
    def head(self) -> Linear | Embedding:
        """What makes logits of hidden vectors; see `layers.logits`."""
        return self.lm_head if hasattr(self, "lm_head") else self.embed

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> float32 [..., V]."""
        return logits(self.head, hidden)


def insert(embeddings: jax.Array, features: jax.Array, destination: jax.Array) -> jax.Array:
    """embeddings [B, T, D] with features [..., D] put at destination int32 [...], which counts b * T + t.

    A destination beyond the end (padding) is dropped.
    """
    B, T, D = embeddings.shape
    flat = embeddings.reshape(B * T, D)
    flat = flat.at[destination.reshape(-1)].set(features.reshape(-1, D).astype(flat.dtype), mode="drop")
    return flat.reshape(B, T, D)
