"""Prefill and decode of one batch: the host's side, which only launches the jitted steps."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.data.batch import Batch
from omni_jax.data.buckets import PREFILL_CHUNK, bucket, power_of_two
from omni_jax.inference import steps
from omni_jax.inference.networks import Network
from omni_jax.inference.sampling import Sampling
from omni_jax.inference.speech import Speaking, Speech, prepare
from omni_jax.inference.steps import DecodeState
from omni_jax.models.kv_cache import KVCache

# Slots. Shorter caches save no time, and only add programs: what speaks a reply takes 50 MB for each of its shapes.
SMALLEST_CACHE = 512
# For which the Talker's cache has room at first (20 s of speech): each step reads all of it, and few replies need more.
FIRST_CODES = 1024


@dataclasses.dataclass
class Session:
    """A reply in the making: the cache, the state of the loop, when its stages ended (seconds), how many of the drawn
    tokens have been handed out, and the speech, if it is spoken. `read`, `position`: where the prompt ended, as a slot
    of the cache and as the next rotary id."""

    cache: KVCache
    state: DecodeState
    sampling: Sampling
    limit: int
    timings: dict[str, float]
    read: int
    position: jax.Array
    speech: Speech | None = None
    handed_out: int = 0

    def took(self, stage: str, since: float) -> None:
        """Adds the time since `since` to a stage's timing."""
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - since

    def replies(self, ends: tuple[int, ...]) -> list[list[int]]:
        """The tokens of each row that were handed out, without the end token."""
        limits = np.minimum(np.asarray(self.state.limits), self.handed_out)
        rows = [row[:limit] for row, limit in zip(np.asarray(self.state.tokens).tolist(), limits, strict=True)]
        return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]


def on_mesh(function):
    """Runs a function of a network with that network's mesh in context."""

    @functools.wraps(function)
    def wrapped(network: Network, *args, **kwargs):
        with jax.set_mesh(network.mesh):
            return function(network, *args, **kwargs)

    return wrapped


def embed(network: Network, batch: Batch) -> jax.Array:
    """The prompt's embeddings [B, T, D], with the media's vectors in their places."""
    weights = (network.graphdef, network.params)
    embeddings = steps.embed(*weights, batch.token_ids)
    for group in batch.audio:
        features = steps.encode_audio(*weights, group.mel, group.frames)
        embeddings = steps.insert(embeddings, features, group.destination)
    for group in batch.vision:
        features = steps.encode_vision(*weights, group.pixels, group.cells)
        embeddings = steps.insert(embeddings, features, group.destination)
    return embeddings


@on_mesh
def positions(network: Network, batch: Batch, start: Any = 0) -> tuple[jax.Array, jax.Array]:
    """TMRoPE ids [3, B, T] and the next id [B]; `start`: the id of the first token."""
    starts = np.broadcast_to(np.asarray(start, np.int32), batch.lengths.shape)
    return steps.position_ids(network.config, batch.token_ids, batch.lengths, batch.vision_grid,
                              batch.seconds_per_grid, starts)


@on_mesh
def prefill(network: Network, batch: Batch, cache: KVCache, start: Any = 0,
            each: Callable[[int, jax.Array], None] | None = None,
            speech: Speech | None = None) -> tuple[KVCache, jax.Array, jax.Array]:
    """Runs a prompt through the decoder in chunks of PREFILL_CHUNK tokens, so that memory does not grow with it.

    Returns the cache, each row's last hidden vector [B, D] and the next id [B]. `each` is given the offset and the
    hidden vectors [B, chunk, D] of every chunk; `speech` follows chunk by chunk.
    """
    embeddings = embed(network, batch)
    ids, following = positions(network, batch, start)
    filled = cache.used + batch.lengths.max()
    B, T, D = embeddings.shape
    last = jnp.zeros((B, D), embeddings.dtype)
    width = min(T, PREFILL_CHUNK)
    media = np.isin(batch.token_ids, network.config.media_token_ids)
    for offset in range(0, T, width):
        chunk, chunk_ids, valid = steps.take(embeddings, ids, batch.lengths, offset, width)
        hidden, cache, last = steps.prefill(network.graphdef, network.params, cache, chunk, chunk_ids, valid,
                                            batch.lengths - 1 - offset, last)
        if each:
            each(offset, hidden)
        if speech:
            speech.hear(hidden, chunk, media[:, offset:offset + width], chunk_ids, valid)
    # Slots beyond the longest row hold padding only: what follows may have them.
    return cache._replace(used=filled), last, following


def slots_for(batch: Batch, limit: int, used: int = 0) -> int:
    """Slots of the cache for a prompt after `used` slots, and a reply of up to `limit` tokens."""
    return bucket(used + batch.token_ids.shape[1] + limit, SMALLEST_CACHE)


@on_mesh
def read(network: Network, batch: Batch, each: Callable[[int, jax.Array], None], start: Any = 0) -> None:
    """Prefills a batch that needs no reply; `start` and `each` as in `prefill`."""
    cache = steps.empty_cache(network.graphdef, network.params, len(batch.lengths), slots_for(batch, 0))
    prefill(network, batch, cache, start, each)


@on_mesh
def begin(network: Network, batch: Batch, sampling: Sampling, limits: np.ndarray, seeds: np.ndarray,
          before: Session | None = None, speaking: Speaking | None = None, forced: np.ndarray | None = None) -> Session:
    """Prefills the batch and draws the first token.

    limits int32 [B]: the longest reply of each row; seeds uint32 [B]; before: the session of the turns so far, which is
    used up (spoken turns `rewind` it first); speaking: if the reply is to be spoken; forced: see steps.DecodeState.
    """
    started = time.perf_counter()
    limit = int(limits.max())
    seen = steps.seen_tokens(batch.token_ids, batch.lengths, network.config.text_config.vocab_size)
    start = before.state.position if before else 0
    seen = seen | before.state.seen if before else seen
    used = int(before.cache.used) if before else 0
    slots, read = slots_for(batch, limit, used), used + int(batch.lengths.max())
    cache = _cache(network, batch, slots, before.cache if before else None)
    speech = speaking and _speech(network, batch, sampling, speaking, start, before)
    cache, last, position = prefill(network, batch, cache, start, speech=speech)
    cache = steps.with_room(cache, slots)
    state = steps.first_token(network.graphdef, network.config, sampling.sampler, network.params, sampling.numbers,
                              last, position, seen, seeds, limits, np.array(network.ends, np.int32), cache.slots,
                              forced)
    if speech:
        speech.start(read, state.done, seeds)
    state.token.block_until_ready()
    timings = {"prefill": time.perf_counter() - started}
    return Session(cache, state, sampling, limit, timings, read, position, speech)


def _cache(network: Network, batch: Batch, slots: int, before: KVCache | None) -> KVCache:
    """A cache to read the prompt into: that of the turns before, or an empty one. A prompt that one step reads gets no
    more slots than itself, for the step looks at them all; `steps.with_room` adds those of the reply."""
    if before is None:
        width = batch.token_ids.shape[1]
        return steps.empty_cache(network.graphdef, network.params, len(batch.lengths),
                                 width if width <= PREFILL_CHUNK else slots)
    # Doubled, so that a long chat compiles for few lengths.
    return before if slots <= before.slots else steps.grow_cache(before, slots=power_of_two(slots))


def _speech(network: Network, batch: Batch, sampling: Sampling, speaking: Speaking, start: Any,
            before: Session | None) -> Speech:
    used = int(before.speech.cache.used) if before else 0
    room = speaking.talker.config.max_position_embeddings - used - batch.lengths - 2
    limit = min(speaking.limit, int(room.max()), FIRST_CODES) + 1  # and the voice's first token
    slots = slots_for(batch, limit, used)
    cache = _cache(speaking.talker, batch, slots, before.speech.cache if before else None)
    return prepare(network, speaking, batch, sampling, cache, slots, start, room)


@on_mesh
def rewind(network: Network, session: Session) -> None:
    """Takes the reply out of a spoken session's caches: the Talker has to hear it as a part of the next prompt, and
    for that the Thinker has to read it once more."""
    session.cache = steps.forget(session.cache, np.int32(session.read))
    session.state = session.state._replace(position=session.position)
    session.speech.cache = steps.forget(session.speech.cache, np.int32(session.read))


@on_mesh
def advance(network: Network, session: Session, limit: int) -> None:
    """Decodes until `limit` tokens have been drawn, or all rows are done. Does not wait for the device."""
    session.cache, session.state = steps.decode(
        network.graphdef, network.config, session.sampling.sampler, network.params, session.sampling.numbers,
        session.cache, session.state, np.array(network.ends, np.int32), np.int32(min(limit, session.limit)))


def stream(network: Network, session: Session) -> Iterator[list[int]]:
    """The drawn tokens [B] of each step, end tokens and padding included, as they come.

    Each step but the first is launched before the token of the one before is read, so that the device is a step ahead
    of the reader. (The first token is not kept waiting for the loop to be compiled.)
    """
    for count in range(1, session.limit + 1):
        token, done = session.state.token, session.state.done
        if 1 < count < session.limit:
            advance(network, session, count + 1)
        session.handed_out = count
        yield np.asarray(token).tolist()
        if np.asarray(done).all():
            return
        if count == 1:
            advance(network, session, 2)
