"""The Qwen2 decoder stack, shared by Thinker and Talker: pre-norm, grouped-query attention, gated MLP."""

import functools
from typing import Any

import jax
from flax import nnx

from omni_jax.config import DecoderConfig
from omni_jax.models import kernels, kv_cache, rope
from omni_jax.models.attention import attend, attend_apart
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

    def __call__(self, x, turn, recall, store, layer):
        """x [B, T, D], turn (cos, sin) [B, T, H/2], store: keys and values of all layers (KVCache), recall: `_written`
        or `_apart`, which takes what it needs of the cache."""
        with jax.named_scope("attention"):
            h = self.attention_norm(x)
            q, k = rope.rotate(self.q(h), *turn), rope.rotate(self.k(h), *turn)
            k, v = (constrain(new, "batch", None, "kv_heads", None) for new in (k, self.v(h)))
            read, store = recall(constrain(q, "batch", None, "heads", None), k, v, store, layer)
            x = x + self.o(read.reshape(*read.shape[:2], -1))
        with jax.named_scope("mlp"):
            x = x + super().__call__(self.mlp_norm(x))
        return constrain(x, "batch", None, None), store


def _written(valid, mask, slot, q, k, v, store, layer):
    """Keys and values are written to the slots from `slot`, and then read with all others: what q reads, [B, T, N, H],
    and the store. valid bool [B, S] and mask [B, T, S] of the cache with the new positions."""
    keys, own_keys = kv_cache.write(store[0], layer, slot, k)
    values, own_values = kv_cache.write(store[1], layer, slot, v)
    return attend(q, own_keys, own_values, mask, (valid, slot)), (keys, values)


def _apart(cache, q, k, v, store, layer):
    """The same for one position, which leaves the cache as it was: `store` is that position's own, of one slot."""
    read = attend_apart(q, cache.keys[layer], cache.values[layer], cache.valid, k, v)
    return read, tuple(kv_cache.write(own, layer, 0, new)[0] for own, new in zip(store, (k, v), strict=True))


class Decoder(nnx.Module):
    """The layers and the final norm. The cache is an argument and a result; in a scan it travels as the carry, because
    as scanned input and output it would be held twice. One token on a CPU is written after all layers have read: what
    is written and read in one turn of a loop is copied there whole, twice."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, dtype: Any, scanned: bool = True):
        self.config = config
        self.layers = stack(DecoderLayer, rngs, config.num_hidden_layers, config, dtype, scanned=scanned)
        self.norm = RMSNorm(rngs, config.hidden_size, config.rms_norm_eps, dtype)

    def __call__(self, x: jax.Array, positions: jax.Array, valid: jax.Array,
                 cache: KVCache) -> tuple[jax.Array, KVCache]:
        """x [B, T, D], positions int32 [3, B, T], valid bool [B, T] -> final-norm hidden [B, T, D] and the cache,
        whose next T slots now hold these positions."""
        turn = rope.mrope(positions, self.config.mrope_section, self.config.rope_theta)
        after, mask = kv_cache.occupy(cache, valid)
        apart = x.shape[1] == 1 and kernels.platform() == "cpu" and on_one_device()
        if apart:
            start, recall = self.empty_cache(x.shape[0], 1), functools.partial(_apart, cache)
        else:
            start, recall = cache, functools.partial(_written, after.valid, mask, cache.used)
        x, store = each(self.layers, self.config.num_hidden_layers,
                        lambda layer, index, carry: layer(carry[0], turn, recall, carry[1], index),
                        (x, (start.keys, start.values)))
        keys, values = kv_cache.append(cache, store, x) if apart else store
        return self.norm(x), after._replace(keys=keys, values=values)

    def empty_cache(self, batch: int, slots: int) -> KVCache:
        """A cache for this decoder, in its weights' dtype."""
        scanned = not isinstance(self.layers, nnx.List)
        return kv_cache.empty(self.config, batch, slots, self.norm.scale.dtype, scanned)
