"""The Qwen2 decoder stack, shared by Thinker and Talker: pre-norm, grouped-query attention, gated MLP."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.models import kv_cache, rope
from omni_jax.models.attention import attend
from omni_jax.models.kv_cache import KVCache
from omni_jax.models.layers import GatedMLP, Linear, RMSNorm, stack
from omni_jax.sharding import constrain


class DecoderLayer(GatedMLP):
    """One layer; it is its own MLP, so that its weights lie on one level."""

    def __init__(self, rngs: nnx.Rngs, config: Any, dtype: Any):
        D, N, K, H = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        super().__init__(rngs, D, config.intermediate_size, dtype)
        self.attention_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)
        self.q = Linear(rngs, (D,), (N, H), ("heads", "head_dim", "embed"), dtype, bias=True)
        self.k = Linear(rngs, (D,), (K, H), ("kv_heads", "head_dim", "embed"), dtype, bias=True)
        self.v = Linear(rngs, (D,), (K, H), ("kv_heads", "head_dim", "embed"), dtype, bias=True)
        self.o = Linear(rngs, (N, H), (D,), ("embed", "heads", "head_dim"), dtype)
        self.mlp_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)

    def __call__(self, x, turn, mask, store, layer, slot):
        """x [B, T, D], turn (cos, sin) [B, T, H/2], mask [B, T, S], store (keys, values) [L, B, K, S, H]."""
        with jax.named_scope("attention"):
            h = self.attention_norm(x)
            keys = kv_cache.write(store[0], layer, slot, rope.rotate(self.k(h), *turn))
            values = kv_cache.write(store[1], layer, slot, self.v(h))
            read = attend(rope.rotate(self.q(h), *turn), keys[layer], values[layer], mask)
            x = x + self.o(read)
        with jax.named_scope("mlp"):
            x = x + super().__call__(self.mlp_norm(x))
        return constrain(x, "batch", None, None), (keys, values)


class Decoder(nnx.Module):
    """The layers, scanned, and the final norm. The cache is an argument and a result (design rule: no hidden state);
    it travels as the scan's carry, because as scanned input and output it would be held twice."""

    def __init__(self, rngs: nnx.Rngs, config: Any, dtype: Any):
        self.config = config
        self.layers = stack(DecoderLayer, rngs, config.num_hidden_layers, config, dtype)
        self.norm = RMSNorm(rngs, config.hidden_size, config.rms_norm_eps, dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, valid: jax.Array,
                 cache: KVCache) -> tuple[jax.Array, KVCache]:
        """x [B, T, D], positions int32 [3, B, T], valid bool [B, T] -> final-norm hidden [B, T, D] and the cache,
        whose next T slots now hold these positions."""
        turn = rope.mrope(positions, self.config.mrope_section, self.config.rope_theta)
        slot = cache.used
        cache, mask = kv_cache.occupy(cache, valid)
        graphdef, weights = nnx.split(self.layers)

        def body(carry, scanned):
            x, store = carry
            layer_weights, index = scanned
            return nnx.merge(graphdef, layer_weights)(x, turn, mask, store, index, slot), None

        (x, (keys, values)), _ = jax.lax.scan(
            body, (x, (cache.keys, cache.values)), (weights, jnp.arange(self.config.num_hidden_layers)))
        return self.norm(x), cache._replace(keys=keys, values=values)
