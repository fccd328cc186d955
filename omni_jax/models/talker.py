"""The Talker: what the Thinker said, and the codes spoken so far, to the next code of speech (paper section 2.4)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import TalkerConfig
from omni_jax.models.decoder import Decoder
from omni_jax.models.kv_cache import KVCache
from omni_jax.models.layers import Embedding, Linear


class Talker(nnx.Module):
    """Source: Qwen2_5OmniTalkerForConditionalGeneration. It lives between two vocabularies: its inputs are vectors of
    the Thinker's width E, to which the embeddings of codec ids are added; its logits are over codec ids C.

    scanned: whether the decoder's layers are stacked and scanned (see layers.each).
    """

    def __init__(self, config: TalkerConfig, rngs: nnx.Rngs, dtype: Any = jnp.float32, scanned: bool = True):
        self.embed = Embedding(rngs, config.vocab_size, config.embedding_size, dtype)
        self.proj = Linear(rngs, (config.embedding_size,), (config.hidden_size,), ("embed", "embed"), dtype, bias=True)
        self.decoder = Decoder(rngs, config, dtype, scanned)
        self.codec_head = Linear(rngs, (config.hidden_size,), (config.vocab_size,), ("vocab", "embed"), dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, valid: jax.Array,
                 cache: KVCache) -> tuple[jax.Array, KVCache]:
        """x [B, T, E], positions int32 [3, B, T], valid bool [B, T] -> final-norm hidden [B, T, D] and the cache."""
        return self.decoder(self.proj(x), positions, valid, cache)

    def packed(self, x: jax.Array, positions: jax.Array, segments: jax.Array, remat: str = "none") -> jax.Array:
        """x [B, T, E] -> final-norm hidden [B, T, D], without a cache: see Decoder.packed."""
        return self.decoder.packed(self.proj(x), positions, segments, remat)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> float32 [..., C]."""
        return self.codec_head(hidden, preferred=jnp.float32)
