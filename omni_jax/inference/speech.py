"""The Talker's half of a reply in the making: the host's side of lockstep.py."""

import dataclasses
from typing import Any

import jax
import numpy as np

from omni_jax.data.batch import Batch
from omni_jax.data.buckets import bucket, power_of_two
from omni_jax.inference import lockstep, steps
from omni_jax.inference.networks import Network
from omni_jax.inference.sampling import Sampling
from omni_jax.models.kv_cache import KVCache


@dataclasses.dataclass(frozen=True)
class Speaking:
    """That a batch is to be spoken, and how. `never` bool [C]: codec ids that are neither sounds nor ends; `limit`: the
    most codes of a row; `first_tokens` int32 [B]: of the voices."""

    talker: Network
    never: np.ndarray
    sampling: Sampling
    limit: int
    first_tokens: np.ndarray


@dataclasses.dataclass
class Speech:
    """What speaking adds to a Session. `slots`: of the cache, once it holds the prompt; `positions` int32 [B, 2] and
    `resume` [B]: see lockstep.begin."""

    talker: Network
    plan: lockstep.Plan
    settings: lockstep.Settings
    cache: KVCache
    slots: int
    voice: jax.Array
    positions: np.ndarray
    resume: np.ndarray
    limits: np.ndarray
    state: lockstep.SpeechState | None = None
    first_slot: int = 0  # of the cache, for the first code

    def hear(self, hidden, embeddings, media, positions, valid) -> None:
        """One chunk of the prompt, right after the Thinker has read it; see lockstep.hear."""
        self.cache = lockstep.hear(self.talker.graphdef, self.talker.params, self.cache, hidden, embeddings, media,
                                   positions, valid)

    def start(self, used: int, done: jax.Array, seeds: np.ndarray) -> None:
        """After the prompt, which ends at slot `used`; done bool [B]: replies of one token, which are not spoken."""
        cache = steps.with_room(self.cache, self.slots)._replace(used=np.int32(used))
        self.first_slot = used + 1
        self.cache, self.state = lockstep.begin(self.talker.graphdef, self.talker.config, self.talker.params, cache,
                                                self.voice, self.positions, self.resume, done, self.limits, seeds,
                                                bucket(int(self.limits.max())))

    def make_room(self, codes: int) -> None:
        """Lets the cache grow where it is too small for so many codes."""
        needed = self.first_slot + min(codes, int(self.limits.max()))
        if needed > self.cache.slots:
            self.cache = steps.grow_cache(self.cache, slots=power_of_two(needed))


def prepare(thinker: Network, speaking: Speaking, batch: Batch, text: Sampling, cache: KVCache, slots: int,
            start: Any, room: np.ndarray) -> Speech:
    """The Talker before the prompt. `slots`: of the cache, for the prompt and the first codes; `start`: the first
    rotary id; `room` int32 [B]: what the context leaves."""
    talker, config = speaking.talker, speaking.talker.config
    plan = lockstep.Plan(thinker.graphdef, talker.graphdef, thinker.config, config, text.sampler,
                         speaking.sampling.sampler)
    end, pad, voice = lockstep.marks(thinker.graphdef, config, thinker.params, speaking.first_tokens)
    settings = lockstep.Settings(text.numbers, speaking.sampling.numbers, np.array(thinker.ends, np.int32),
                                 np.array(talker.ends, np.int32), speaking.never, end, pad)
    positions, resume = _positions(thinker, batch, speaking.first_tokens, start)
    limits = np.minimum(speaking.limit, room).astype(np.int32)
    return Speech(talker, plan, settings, cache, slots, voice, positions, resume, limits)


def _positions(thinker: Network, batch: Batch, first_tokens: np.ndarray, start: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rotary ids [B, 2] of the two places after each row's prompt, and the one after the greatest of all [B].

    The reference numbers them as text of the prompt: after media they follow the chunk that was appended last.
    """
    rows = np.arange(len(batch.lengths))
    tokens = np.pad(batch.token_ids, ((0, 0), (0, 2)))
    for place in (0, 1):
        tokens[rows, batch.lengths + place] = first_tokens
    starts = np.broadcast_to(np.asarray(start, np.int32), batch.lengths.shape)
    ids, resume = steps.position_ids(thinker.config, tokens, batch.lengths + np.int32(2), batch.vision_grid,
                                     batch.seconds_per_grid, starts)
    return np.asarray(ids)[0, rows[:, None], batch.lengths[:, None] + np.arange(2)], np.asarray(resume)
