"""The Qwen2 decoder stack, shared by Thinker and Talker: pre-norm, grouped-query attention, gated MLP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import DecoderConfig
from omni_jax.models import kernels, kv_cache, rope
from omni_jax.models.attention import attend, attend_apart, attend_packed
from omni_jax.models.kv_cache import KVCache
from omni_jax.models.layers import GatedMLP, Linear, RMSNorm, each, stack
from omni_jax.sharding import constrain, on_one_device


class DecoderLayer(GatedMLP):
    """One layer; it is its own MLP, so that its weights lie on one level."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, dtype: Any):
        D, N, K, H = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        super().__init__(rngs, D, config.intermediate_size, dtype)
        self.attention_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)
        self.q = Linear(rngs, (D,), (N, H), ("heads", "head_dim", "embed"), dtype, bias=True)
        self.k = Linear(rngs, (D,), (K, H), ("kv_heads", "head_dim", "embed"), dtype, bias=True)
        self.v = Linear(rngs, (D,), (K, H), ("kv_heads", "head_dim", "embed"), dtype, bias=True)
        self.o = Linear(rngs, (N * H,), (D,), ("embed", ("heads", H)), dtype)
        self.mlp_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)

    def __call__(self, x: jax.Array, turn: tuple[jax.Array, jax.Array], attention: Callable) -> tuple[jax.Array, Any]:
        """x [B, T, D], turn (cos, sin) [B, T, H/2]; attention: of q [B, T, N, H] and of this layer's new k and v
        [B, T, K, H], gives what q reads [B, T, N, H] and anything to hand on with the new x."""
        with jax.named_scope("attention"):
            h = self.attention_norm(x)
            q, k = rope.rotate(self.q(h), *turn), rope.rotate(self.k(h), *turn)
            k, v = (constrain(part, "batch", None, "kv_heads", None) for part in (k, self.v(h)))
            read, kept = attention(constrain(q, "batch", None, "heads", None), k, v)
            x = x + self.o(read.reshape(*read.shape[:2], -1))
        with jax.named_scope("mlp"):
            x = x + super().__call__(self.mlp_norm(x))
        return constrain(x, "batch", None, None), kept


class Decoder(nnx.Module):
    """The layers and the final norm. The cache is an argument and a result; in a scan it travels as the carry, because
    as scanned input and output it would be held twice."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, dtype: Any, scanned: bool = True):
        self.config = config
        self.layers = stack(DecoderLayer, rngs, config.num_hidden_layers, config, dtype, scanned=scanned)
        self.norm = RMSNorm(rngs, config.hidden_size, config.rms_norm_eps, dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, valid: jax.Array,
                 cache: KVCache) -> tuple[jax.Array, KVCache]:
        """x [B, T, D], positions int32 [3, B, T], valid bool [B, T] -> final-norm hidden [B, T, D] and the cache,
        whose next T slots now hold these positions."""
        turn = rope.mrope(positions, self.config.mrope_section, self.config.rope_theta)
        one = x.shape[1] == 1 and kernels.platform() == "cpu" and on_one_device()
        return (self._apart if one else self._written)(x, turn, valid, cache)

    def _written(self, x, turn, valid, cache):
        """Each layer writes its keys and values, and then reads them with all others."""
        slot = cache.used
        cache, mask = kv_cache.occupy(cache, valid)

        def step(layer, index, carry):
            def attention(q, k, v):
                keys, own_keys = kv_cache.write(carry[1][0], index, slot, k)
                values, own_values = kv_cache.write(carry[1][1], index, slot, v)
                return attend(q, own_keys, own_values, mask, (cache.valid, slot)), (keys, values)

            return layer(carry[0], turn, attention)

        x, (keys, values) = each(self.layers, self.config.num_hidden_layers, step, (x, (cache.keys, cache.values)))
        return self.norm(x), cache._replace(keys=keys, values=values)

    def _apart(self, x, turn, valid, cache):
        """The same for one token on a CPU, whose keys and values are written when all layers have read: a cache that is
        written and read in one turn of a loop would be copied there whole, twice."""

        def step(layer, index, carry):
            def attention(q, k, v):
                own = [kv_cache.write(part, index, 0, new)[0] for part, new in zip(carry[1], (k, v), strict=True)]
                return attend_apart(q, cache.keys[index], cache.values[index], cache.valid, k, v), tuple(own)

            return layer(carry[0], turn, attention)

        new = self.empty_cache(x.shape[0], 1)
        x, new = each(self.layers, self.config.num_hidden_layers, step, (x, (new.keys, new.values)))
        keys, values = kv_cache.append(cache, new, x)
        return self.norm(x), kv_cache.occupy(cache, valid)[0]._replace(keys=keys, values=values)

    def packed(self, x: jax.Array, positions: jax.Array, segments: jax.Array, remat: str = "none") -> jax.Array:
        """x [B, T, D], positions int32 [3, B, T], segments int32 [B, T] -> final-norm hidden [B, T, D], without a
        cache: each position sees the earlier ones of its own segment. remat: see `layers.each`."""
        turn = rope.mrope(positions, self.config.mrope_section, self.config.rope_theta)
        attention = lambda q, k, v: (attend_packed(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), segments), None)
        x = each(self.layers, self.config.num_hidden_layers, lambda layer, _, x: layer(x, turn, attention)[0], x, remat)
        return self.norm(x)

    def empty_cache(self, batch: int, slots: int) -> KVCache:
        """A cache for this decoder, in its weights' dtype."""
        scanned = not isinstance(self.layers, nnx.List)
        return kv_cache.empty(self.config, batch, slots, self.norm.scale.dtype, scanned)
