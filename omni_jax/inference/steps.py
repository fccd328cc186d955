"""The jitted pieces of a reply: embed, encode media, prefill a chunk, decode.

Each is a pure function of a static graphdef and arrays; caches and embeddings are donated. Their shapes are few: a
prompt is prefilled in chunks of one size, media go through the towers in groups of one size, and the decode loop
depends on the batch and the cache's length alone.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import ThinkerConfig
from omni_jax.inference import sampling
from omni_jax.inference.sampling import Sampler
from omni_jax.models import kv_cache, thinker, tmrope
from omni_jax.models.kv_cache import KVCache
from omni_jax.models.thinker import Thinker
from omni_jax.sharding import constrain


class DecodeState(NamedTuple):
    """A reply in the making, beside its cache. S: slots of the cache, which bound a reply's length."""

    token: jax.Array      # int32 [B]: drawn last, not yet fed in
    logits: jax.Array     # float32 [B, V]: what it was drawn from
    position: jax.Array   # int32 [B]: the rotary id at which it will be fed in
    tokens: jax.Array     # int32 [B, S]: all drawn so far
    count: jax.Array      # int32 []: how many
    done: jax.Array       # bool [B]: has drawn an end token, or as many as it may
    limits: jax.Array     # int32 [B]: how many tokens each row may draw
    seen: jax.Array       # bool [B, V]: tokens of prompt and reply, for the repetition penalty
    seeds: jax.Array      # uint32 [B]
    forced: jax.Array | None = None  # int32 [B, F]: what is drawn whatever the scores say; None: what they say


@functools.partial(jax.jit, static_argnames="graphdef")
def embed(graphdef: nnx.GraphDef, params: Any, token_ids: jax.Array) -> jax.Array:
    """int32 [B, T] -> [B, T, D]."""
    return nnx.merge(graphdef, params).embed(token_ids)


# The towers know nothing of the prompt's length, so that a picture beside a longer text compiles nothing.
@functools.partial(jax.jit, static_argnames="graphdef")
def encode_audio(graphdef, params, mel, frames):
    """The audio tower's vectors for blocks of mel; see data.batch.AudioBlocks."""
    return nnx.merge(graphdef, params).audio(mel, frames)


@functools.partial(jax.jit, static_argnames="graphdef")
def encode_vision(graphdef, params, pixels, cells):
    """The vision tower's vectors for frame pairs; see data.batch.VisionWindows."""
    return nnx.merge(graphdef, params).vision(pixels, cells)


insert = jax.jit(thinker.insert, donate_argnames="embeddings")
position_ids = jax.jit(tmrope.position_ids, static_argnames="config")


@functools.partial(jax.jit, static_argnames=("graphdef", "batch", "slots"))
def empty_cache(graphdef, params, batch: int, slots: int) -> KVCache:
    return nnx.merge(graphdef, params).decoder.empty_cache(batch, slots)


grow_cache = jax.jit(kv_cache.grow, static_argnames="slots")
forget = jax.jit(kv_cache.forget, donate_argnames="cache")


def with_room(cache: KVCache, slots: int) -> KVCache:
    """The same cache with at least so many slots."""
    return cache if slots <= cache.slots else grow_cache(cache, slots=slots)


@functools.partial(jax.jit, static_argnames="width")
def take(embeddings, positions, lengths, offset, width: int):
    """The chunk of `width` tokens from `offset`: embeddings [B, width, D], ids [3, B, width], valid [B, width]."""
    valid = offset + jnp.arange(width) < lengths[:, None]
    return (jax.lax.dynamic_slice_in_dim(embeddings, offset, width, 1),
            jax.lax.dynamic_slice_in_dim(positions, offset, width, 2), valid)


@functools.partial(jax.jit, static_argnames="graphdef", donate_argnames=("cache", "last"))
def prefill(graphdef, params, cache, chunk, positions, valid, ends, last):
    """One chunk through the decoder: chunk [B, T, D], positions [3, B, T], valid [B, T].

    `ends` int32 [B] counts from the chunk's start to each row's last token; where it lies inside the chunk, `last`
    [B, D] takes its hidden vector. Returns (hidden [B, T, D], cache, last).
    """
    hidden, cache = nnx.merge(graphdef, params).decoder(chunk, positions, valid, cache)
    here = (ends >= 0) & (ends < chunk.shape[1])
    own = jnp.take_along_axis(hidden, jnp.clip(ends, 0, chunk.shape[1] - 1)[:, None, None], axis=1)[:, 0]
    return hidden, cache, jnp.where(here[:, None], own, last)


@functools.partial(jax.jit, static_argnames="graphdef")
def logits(graphdef, params, hidden):
    """hidden [..., D] -> float32 [..., V]."""
    return nnx.merge(graphdef, params).logits(hidden)


@functools.partial(jax.jit, static_argnames="vocabulary")
def seen_tokens(token_ids, lengths, vocabulary: int):
    """bool [B, V]: which tokens each prompt, int32 [B, T] of lengths [B], holds."""
    real = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    rows = jnp.arange(token_ids.shape[0])[:, None]
    return constrain(jnp.zeros((token_ids.shape[0], vocabulary), bool).at[rows, token_ids].max(real), "batch", None)


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "sampler", "slots"))
def first_token(graphdef, config: ThinkerConfig, sampler: Sampler, params, numbers, last, position, seen, seeds, limits,
                ends, slots: int, forced=None) -> DecodeState:
    """The state after prefill: draws the first token from the last hidden vectors [B, D]."""
    scores = nnx.merge(graphdef, params).logits(last)
    B = last.shape[0]
    state = DecodeState(jnp.zeros(B, jnp.int32), scores, position, jnp.zeros((B, slots), jnp.int32),
                        jnp.zeros((), jnp.int32), jnp.zeros(B, bool), limits, seen, seeds, forced)
    return settled(draw(sampler, numbers, state, scores, ends, config.pad_token_id))


def settled(state: DecodeState) -> DecodeState:
    """The state laid out as every launch takes it: what a loop prefers would compile the next launch anew."""
    return state._replace(logits=constrain(state.logits, "batch", None), seen=constrain(state.seen, "batch", None))


def draw(sampler: Sampler, numbers, state: DecodeState, scores, ends, pad: int, first_draw: int = 0,
         never: jax.Array | None = None) -> DecodeState:
    """The state after one more token from float32 scores [B, V]. Rows that are done get `pad`; `first_draw` counts the
    draws of a seed that others have; `never` bool [V]: tokens that may not be drawn."""
    allowed = scores if never is None else jnp.where(never, -jnp.inf, scores)
    if state.forced is None:
        token = sampling.choose(sampler, numbers, allowed, state.seen, state.seeds, first_draw + state.count)
    else:
        token = jax.lax.dynamic_index_in_dim(state.forced, state.count, axis=1, keepdims=False)
    token = jnp.where(state.done, pad, token)
    tokens = jax.lax.dynamic_update_slice(state.tokens, token[:, None], (0, state.count))
    seen = constrain(state.seen.at[jnp.arange(token.shape[0]), token].set(True), "batch", None)
    count = state.count + 1
    done = state.done | (token[:, None] == ends).any(-1) | (count >= state.limits)
    return state._replace(token=token, logits=scores, tokens=tokens, seen=seen, count=count, done=done)


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "sampler"), donate_argnames="cache")
def decode(graphdef, config: ThinkerConfig, sampler: Sampler, params, numbers, cache, state: DecodeState, ends,
           limit) -> tuple[KVCache, DecodeState]:
    """Feeds in and draws tokens until `limit` (int32 []) have been drawn or every row is done.

    `ends` int32 [E]: the end tokens. The one loop of `generate` (limit: the longest reply) and `stream` (limit: one
    more token).
    """
    model = nnx.merge(graphdef, params)

    def step(carry):
        return think(model, config, sampler, numbers, ends, *carry)[1:]

    cache, state = jax.lax.while_loop(lambda carry: (carry[1].count < limit) & ~carry[1].done.all(), step,
                                      (cache, state))
    return cache, settled(state)


def think(model: Thinker, config: ThinkerConfig, sampler: Sampler, numbers, ends, cache,
          state: DecodeState) -> tuple[jax.Array, KVCache, DecodeState]:
    """Feeds in the last token of each row and draws the next. Returns also what the Talker hears of it [B, D]: the
    token's embedding and its final-norm hidden vector, added."""
    positions = jnp.broadcast_to(state.position[None, :, None], (3, state.position.shape[0], 1))
    embedding = model.embed(state.token[:, None])
    hidden, cache = model.decoder(embedding, positions, ~state.done[:, None], cache)
    state = state._replace(position=state.position + 1)
    state = draw(sampler, numbers, state, model.logits(hidden[:, 0]), ends, config.pad_token_id)
    return (hidden + embedding)[:, 0], cache, state
