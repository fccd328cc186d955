"""Conversations that keep their cache: each turn reads only what is new."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from omni_jax.data.batch import Prompt
from omni_jax.inference.generate import Session
from omni_jax.inference.omni import Omni, Reply, TextChunk
from omni_jax.inference.sampling import row_seeds


class Chat:
    """Turns of one conversation. `messages` holds all of it so far; options are those of `Omni.generate`.

    A turn continues the cache, so the tokens of earlier replies stay what was drawn, and rotary ids go on where the
    last reply ended. Each turn draws anew from the seed.
    """

    def __init__(self, omni: Omni, use_audio_in_video: bool = False, fps_for_positions: str = "true",
                 max_new_tokens: int = 1024, seed: int = 0, temperature: float | None = None,
                 top_p: float | None = None, top_k: int | None = None, repetition_penalty: float | None = None):
        self.omni, self.limit = omni, omni.reply_limit(max_new_tokens)
        self.seed = int(row_seeds(seed, 1)[0])
        self.reading = {"use_audio_in_video": use_audio_in_video, "fps_for_positions": fps_for_positions}
        self.sampling = omni.sampling_with(temperature, top_p, top_k, repetition_penalty)
        self.messages: list[dict[str, Any]] = []
        self._turn = 0
        self._session: Session | None = None  # of the last turn, if its reply was kept

    def send(self, *messages: dict[str, Any] | str) -> Reply:
        """Adds messages (a string is the user's) and returns the reply, which is added as well."""
        started = time.perf_counter()
        session = self._begin(messages, started)
        reply, = self.omni.finish(session, started)
        self._keep(session, self._turn)
        return reply

    def stream(self, *messages: dict[str, Any] | str) -> Iterator[TextChunk]:
        """As `send`, in pieces as they are ready. Left early, the reply ends with what was read by then."""
        return self._stream(self._begin(messages, time.perf_counter()), self._turn)

    def _stream(self, session: Session, turn: int) -> Iterator[TextChunk]:
        try:
            yield from self.omni.text_chunks(session)
        finally:
            self._keep(session, turn)

    def _begin(self, messages: tuple, started: float) -> Session:
        new = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        prompt = self._prompt(new)
        before, self._session = self._session, None  # its cache is donated; after a failure all is read again
        session = self.omni.begin([prompt], self.sampling, self.limit, self._seeds(), started, before)
        self.messages += new
        self._turn += 1
        return session

    def _seeds(self) -> np.ndarray:
        """The seed itself for the first turn, as `generate` would draw; another for each later one."""
        if not self._turn:
            return np.array([self.seed], np.uint32)
        return np.random.SeedSequence([self.seed, self._turn]).generate_state(1)

    def _prompt(self, new: list[dict[str, Any]]) -> Prompt:
        if self._session is None:
            return self.omni.processor.prompt([*self.messages, *new], **self.reading, max_new_tokens=1)
        state, cache = self._session.state, self._session.cache
        prompt = self.omni.processor.next_prompt(new, **self.reading, max_new_tokens=2, past_tokens=int(cache.used))
        last = int(state.token[0])
        # Drawn but not fed in: an end token needs no feeding, nor does one that nobody has read.
        fed = last in self.omni.network.ends or self._session.handed_out < int(state.count)
        return prompt if fed else _preceded_by(last, prompt)

    def _keep(self, session: Session, turn: int) -> None:
        if turn != self._turn:  # a stream closed after the next turn had begun: that turn knows nothing of it
            return
        tokens, = session.replies(self.omni.network.ends)
        self.messages.append({"role": "assistant", "content": self.omni.processor.tokenizer.decode(tokens)})
        self._session = session


def _preceded_by(token: int, prompt: Prompt) -> Prompt:
    """The prompt after one more token: the last one of a reply that was cut off, drawn but not yet fed in."""
    return dataclasses.replace(
        prompt, token_ids=np.concatenate([[token], prompt.token_ids]).astype(np.int32),
        clips=tuple(dataclasses.replace(clip, positions=clip.positions + 1) for clip in prompt.clips),
        pictures=tuple(dataclasses.replace(picture, positions=picture.positions + 1) for picture in prompt.pictures))
