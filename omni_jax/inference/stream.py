"""The pipeline of a spoken reply: tokens, codes and sounds as the device makes them.

The host launches the lock-step for some codes at a time, hands these to Token2Wav, and launches the next before it
waits for the sound: so the device always has work, and the first sound waits for nothing but its own codes. A launch
draws at most a block; as long as there is text to come, no more codes than let it appear several times a second.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from omni_jax.inference import generate, lockstep
from omni_jax.inference.generate import Session, on_mesh
from omni_jax.inference.networks import Network
from omni_jax.inference.steps import DecodeState

BLOCK = 12  # codes that one launch draws at most: a block of the DiT
TEXT_EVERY = 0.1  # seconds: a launch that draws text as well should take no longer


class Event(NamedTuple):
    """What one launch gave. `tokens`, `codes`: new ones of each row, without ends; `sounds`: of `Push`."""

    tokens: list[np.ndarray]
    codes: list[np.ndarray]
    sounds: list[Any]


# Takes new codes of each row and which rows have ended (bool [B]); returns the sounds that these complete.
Push = Callable[[list[np.ndarray], np.ndarray], list[Any]]


class Reader:
    """Reads a loop's new ids of each row, up to its end. `ended` bool [B]; `count`: steps read."""

    def __init__(self, ends: tuple[int, ...], rows: int):
        self.ends, self.count, self.ended = ends, 0, np.zeros(rows, bool)

    def fresh(self, state: DecodeState) -> list[np.ndarray]:
        """The ids since the last call; waits for the device."""
        first, self.count = self.count, int(state.count)
        block, limits = np.asarray(state.tokens)[:, first: self.count], np.asarray(state.limits)
        rows = [self._cut(row[: max(0, limit - first)]) if not ended else row[:0]
                for row, limit, ended in zip(block, limits, self.ended, strict=True)]
        self.ended = np.array(state.done)
        return rows

    def _cut(self, row: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(np.isin(row, self.ends))
        return row[: ends[0]] if ends.size else row


@on_mesh
def speak(network: Network, session: Session, limit: int) -> None:
    """Launches both networks until `limit` codes have been drawn; see lockstep.speak."""
    speech = session.speech
    speech.make_room(limit)
    params = {"thinker": network.params, "talker": speech.talker.params}
    caches, session.state, speech.state = lockstep.speak(
        speech.plan, params, speech.settings, (session.cache, speech.cache), session.state, speech.state,
        np.int32(limit))
    session.cache, speech.cache = caches


def events(network: Network, session: Session, push: Push) -> Iterator[Event]:
    """Runs a spoken session to its end. The first token comes by itself, before anything is launched."""
    speech, rows = session.speech, len(session.speech.limits)
    text, codes = Reader(network.ends, rows), Reader(speech.talker.ends, rows)
    codes.ended = np.array(speech.state.codes.done)
    first, pace = session.state, Pace()
    speak(network, session, pace.next(codes, text))
    session.handed_out = 1
    yield Event(text.fresh(first), [np.zeros(0, np.int32)] * rows, [])
    while not codes.ended.all():
        waiting = time.perf_counter()
        tokens, spoken = text.fresh(session.state), codes.fresh(speech.state.codes)
        session.handed_out = text.count
        session.took("lockstep", waiting)
        pace.ended()
        sounds = push(spoken, codes.ended)
        if not codes.ended.all():
            speak(network, session, pace.next(codes, text))
        yield Event(tokens, spoken, sounds)
    while not text.ended.all():  # silent replies, and text beyond the longest speech
        generate.advance(network, session, pace.next(text, text))
        tokens = text.fresh(session.state)
        session.handed_out = text.count
        pace.ended()
        yield Event(tokens, [np.zeros(0, np.int32)] * rows, [])


class Pace:
    """How many ids a launch draws. `step`: seconds of the quickest so far (others have compiled, or waited for sound or
    for who reads)."""

    def __init__(self) -> None:
        self.step, self.drawn, self.began = float("inf"), 1, 0.0

    def next(self, ids: Reader, text: Reader) -> int:
        """The count at which the launch ends that begins now; the first draws one, to be timed."""
        fits = BLOCK if text.ended.all() else int(TEXT_EVERY / self.step)
        rest = BLOCK - ids.count % BLOCK
        launches = -(-rest // max(1, fits))  # of one size, about, to the end of the block
        self.drawn, self.began = -(-rest // launches), time.perf_counter()
        return ids.count + self.drawn

    def ended(self) -> None:
        self.step = min(self.step, (time.perf_counter() - self.began) / self.drawn)
