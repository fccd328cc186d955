"""The decoder's memory: keys and values of every position seen so far, for all layers.

Slots are filled in order by all rows together: prompts of unequal length are padded on the right, and `valid` says
which slots hold something. A slot is a place, not a position: rotary positions come from TMRoPE.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from omni_jax.sharding import constrain


class KVCache(NamedTuple):
    """keys, values [L, B, K, S, H] (this order reads seven times faster on a CPU than [B, S, K, H]);
    valid bool [B, S]; used int32 []: slots filled so far."""

    keys: jax.Array
    values: jax.Array
    valid: jax.Array
    used: jax.Array

    @property
    def slots(self) -> int:
        return self.valid.shape[1]


def empty(config: Any, batch: int, slots: int, dtype: Any) -> KVCache:
    """An empty cache for a decoder configuration (num_hidden_layers, num_key_value_heads, head_dim)."""
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, slots, config.head_dim)
    zeros = lambda: constrain(jnp.zeros(shape, dtype), "layers", "batch", "kv_heads", None, None)
    return KVCache(zeros(), zeros(), jnp.zeros((batch, slots), bool), jnp.zeros((), jnp.int32))


def grow(cache: KVCache, slots: int) -> KVCache:
    """The same cache with room for more."""
    pad = lambda x, axis: jnp.pad(x, [(0, slots - cache.slots if i == axis else 0) for i in range(x.ndim)])
    return KVCache(pad(cache.keys, 3), pad(cache.values, 3), pad(cache.valid, 1), cache.used)


def occupy(cache: KVCache, valid: jax.Array) -> tuple[KVCache, jax.Array]:
    """Takes the next T slots for new positions; valid bool [B, T] is False for padding.

    Returns the cache and the causal mask bool [B, T, S] by which the new positions look at slots.
    """
    T = valid.shape[1]
    marked = jax.lax.dynamic_update_slice(cache.valid, valid, (0, cache.used))
    own = cache.used + jnp.arange(T)
    causal = jnp.arange(cache.slots) <= own[:, None]
    return cache._replace(valid=marked, used=cache.used + T), marked[:, None] & causal


def write(store: jax.Array, layer: jax.Array, slot: jax.Array, new: jax.Array) -> jax.Array:
    """store [L, B, K, S, H] with new [B, T, K, H] at the slots from `slot` of one layer."""
    return jax.lax.dynamic_update_slice(store, jnp.swapaxes(new, 1, 2)[None], (layer, 0, 0, slot, 0))
