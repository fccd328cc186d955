"""Conversations that keep their cache: each turn reads only what is new."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from omni_jax.data.batch import Prompt
from omni_jax.inference import generate
from omni_jax.inference.generate import Session
from omni_jax.inference.omni import Omni
from omni_jax.inference.replies import AudioChunk, Options, Reply, Request, TextChunk
from omni_jax.inference.sampling import row_seeds


class Chat:
    """Turns of one conversation. `messages` holds all of it so far; `options` are those of `Omni.generate`.

    A turn continues the caches, so the tokens of earlier replies stay what was drawn, and rotary ids go on where the
    last reply ended. Each turn draws anew from the seed. The Talker hears earlier replies as text, as the reference's
    does: its codes are forgotten, and both networks read the last reply again before what is new.
    """

    def __init__(self, omni: Omni, seed: int = 0, **options: Any):
        self.omni, self.options = omni, Options(**options)
        self.seed = int(row_seeds(seed, 1)[0])
        self.messages: list[dict[str, Any]] = []
        self._turn = 0
        self._session: Session | None = None  # of the last turn, if its reply was kept
        self._request()

    def send(self, *messages: dict[str, Any] | str) -> Reply:
        """Adds messages (a string is the user's) and returns the reply, which is added as well."""
        started = time.perf_counter()
        session, request = self._begin(messages, started)
        reply, = self.omni.finish(session, request, started)
        self._keep(session, self._turn)
        return reply

    def stream(self, *messages: dict[str, Any] | str) -> Iterator[TextChunk | AudioChunk]:
        """As `send`, in pieces as they are ready. Left early, the reply ends with what was read by then."""
        started = time.perf_counter()
        return self._stream(*self._begin(messages, started), self._turn, started)

    def _stream(self, session: Session, request: Request, turn: int,
                started: float) -> Iterator[TextChunk | AudioChunk]:
        try:
            yield from self.omni.chunks(session, request, started)
        finally:
            self._keep(session, turn)

    def _begin(self, messages: tuple, started: float) -> tuple[Session, Request]:
        new = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        request = self._request()
        prompt = self._prompt(new)
        before, self._session = self._session, None  # its cache is donated; after a failure all is read again
        session = self.omni.begin([prompt], request, started, before)
        self.messages += new
        self._turn += 1
        return session, request

    def _request(self) -> Request:
        """With the seed itself for the first turn, as `generate` would draw, and another for each later one."""
        seeds = np.array([self.seed], np.uint32)
        if self._turn:
            seeds = np.random.SeedSequence([self.seed, self._turn]).generate_state(1)
        return self.omni.request(self.options, seeds)

    def _prompt(self, new: list[dict[str, Any]]) -> Prompt:
        reading, session, ends = self.options.reading, self._session, self.omni.network.ends
        if session is None:
            return self.omni.processor.prompt([*self.messages, *new], *reading, max_new_tokens=1)
        used = int(session.cache.used)
        if session.speech:
            unread, = session.replies(ends)
            used = session.read + len(unread)
        else:
            # Drawn but not fed in: an end token needs no feeding, nor does one that nobody has read.
            last = int(session.state.token[0])
            unread = [] if last in ends or session.handed_out < int(session.state.count) else [last]
        prompt = self.omni.processor.next_prompt(new, *reading, max_new_tokens=2, past_tokens=used)
        if session.speech:
            generate.rewind(self.omni.network, session)
        return _preceded_by(unread, prompt) if unread else prompt

    def _keep(self, session: Session, turn: int) -> None:
        if turn != self._turn:  # a stream closed after the next turn had begun: that turn knows nothing of it
            return
        tokens, = session.replies(self.omni.network.ends)
        self.messages.append({"role": "assistant", "content": self.omni.processor.tokenizer.decode(tokens)})
        self._session = session


def _preceded_by(tokens: list[int], prompt: Prompt) -> Prompt:
    """The prompt after some tokens of the reply before it that are still to be read."""
    n = len(tokens)
    moved = lambda items: tuple(dataclasses.replace(item, positions=item.positions + n) for item in items)
    return dataclasses.replace(prompt, token_ids=np.concatenate([tokens, prompt.token_ids]).astype(np.int32),
                               clips=moved(prompt.clips), pictures=moved(prompt.pictures))
