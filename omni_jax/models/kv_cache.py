"""The decoder's memory: keys and values of every position seen so far, for all layers.

Slots are filled in order by all rows together: prompts of unequal length are padded on the right, and `valid` says
which slots hold something. A slot is a place, not a position: rotary positions come from TMRoPE.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from omni_jax.config import DecoderConfig
from omni_jax.sharding import constrain


class KVCache(NamedTuple):
    """keys, values [L, B, K, S, H], or a tuple of L arrays [B, K, S, H] for layers that are not scanned (this order
    reads seven times faster on a CPU than [B, S, K, H]); valid bool [B, S]; used int32 []: slots filled so far."""

    keys: Any
    values: Any
    valid: jax.Array
    used: jax.Array

    @property
    def slots(self) -> int:
        return self.valid.shape[1]


def empty(config: DecoderConfig, batch: int, slots: int, dtype: Any, scanned: bool) -> KVCache:
    """An empty cache for a decoder."""
    shape = (batch, config.num_key_value_heads, slots, config.head_dim)
    layers = config.num_hidden_layers

    def zeros():
        if scanned:
            return _laid_out(jnp.zeros((layers, *shape), dtype))
        return tuple(_laid_out(jnp.zeros(shape, dtype)) for _ in range(layers))

    return KVCache(zeros(), zeros(), _by_row(jnp.zeros((batch, slots), bool)), jnp.zeros((), jnp.int32))


def _by_row(valid: jax.Array) -> jax.Array:
    """One layout wherever it is made: another would compile every user of the cache anew."""
    return constrain(valid, "batch", None)


def _laid_out(store: jax.Array) -> jax.Array:
    """kv heads over the mesh, or slots where the heads do not divide: softmax over slots then needs two small sums."""
    axes = ("batch", "kv_heads", "slots", None)
    return constrain(store, *(("layers", *axes) if store.ndim == 5 else axes))


def grow(cache: KVCache, slots: int) -> KVCache:
    """The same cache with room for more."""
    def pad(x, axis):
        return jnp.pad(x, [(0, slots - cache.slots if i == x.ndim + axis else 0) for i in range(x.ndim)])

    keys, values = jax.tree.map(lambda store: _laid_out(pad(store, -2)), (cache.keys, cache.values))
    return KVCache(keys, values, _by_row(pad(cache.valid, -1)), cache.used)


def forget(cache: KVCache, used: jax.Array) -> KVCache:
    """The same cache with its first `used` slots alone."""
    return cache._replace(valid=_by_row(cache.valid & (jnp.arange(cache.slots) < used)), used=used)


def occupy(cache: KVCache, valid: jax.Array) -> tuple[KVCache, jax.Array]:
    """Takes the next T slots for new positions; valid bool [B, T] is False for padding.

    Returns the cache and the causal mask bool [B, T, S] by which the new positions look at slots.
    """
    T = valid.shape[1]
    marked = _by_row(jax.lax.dynamic_update_slice(cache.valid, valid, (0, cache.used)))
    own = cache.used + jnp.arange(T)
    causal = jnp.arange(cache.slots) <= own[:, None]
    return cache._replace(valid=marked, used=cache.used + T), marked[:, None] & causal


def write(store: Any, layer: Any, slot: jax.Array, new: jax.Array) -> tuple[Any, jax.Array]:
    """Puts new [B, T, K, H] at the slots from `slot` of one layer; returns the store and that layer [B, K, S, H]."""
    new = jnp.swapaxes(new, 1, 2)
    if isinstance(store, tuple):
        own = _laid_out(jax.lax.dynamic_update_slice(store[layer], new, (0, 0, slot, 0)))
        return (*store[:layer], own, *store[layer + 1:]), own
    store = _laid_out(jax.lax.dynamic_update_slice(store, new[None], (layer, 0, 0, slot, 0)))
    return store, store[layer]


def append(cache: KVCache, new: tuple[Any, Any], x: jax.Array) -> tuple[Any, Any]:
    """keys and values with those of one more position, `new` (of one slot), in the next slot. x [B, T, D]: the last
    that was made from the cache."""
    # Names the same slot whatever x is. It tells XLA that all has been read, and so can be overwritten where it lies.
    slot = jnp.minimum(cache.used, cache.slots + jnp.isnan(x[0, 0, 0]))

    def put(store, new):
        return _laid_out(jax.lax.dynamic_update_slice_in_dim(store, new, slot, store.ndim - 2))

    return jax.tree.map(put, (cache.keys, cache.values), new)
