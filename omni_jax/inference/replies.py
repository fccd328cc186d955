"""What is asked for, and what comes back."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from omni_jax.data.buckets import bucket
from omni_jax.data.tokenizer import StreamDecoder, Tokenizer
from omni_jax.errors import OmniError
from omni_jax.inference.sampling import Sampling, whole_number
from omni_jax.inference.speech import Speaking
from omni_jax.inference.token2wav import SAMPLE_RATE
from omni_jax.models.dit import STEPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to read a conversation and to answer it.

    use_audio_in_video: hear the videos as well. fps_for_positions "nominal" gives videos the reference's 2 fps in
    TMRoPE instead of their true sampled rate. Sampling settings of the text left out are those of
    generation_config.json, else greedy.
    return_audio: whether to speak; None: if the checkpoint can. speaker: a name of `Omni.speakers`, or a list of one a
    row; None: Chelsie, or the first. talker_*: how codes are drawn (talker_temperature 0: greedy), and how many at
    most. solve: "block", which streams, or "whole", the reference's solve of the whole clip, whose sound comes at the
    end. solver_steps: of Token2Wav's solver, four evaluations each; fewer than the reference's 9 are faster.
    reply_ids: the tokens of each row's reply (see `Omni.reply_ids`), which the Thinker then says instead of its own (so
    the Talker speaks a given text); max_new_tokens and sampling settings of the text then count for nothing.
    """

    use_audio_in_video: bool = False
    fps_for_positions: str = "true"
    max_new_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    speaker: str | Sequence[str | None] | None = None
    return_audio: bool | None = None
    talker_max_new_tokens: int = 4096
    talker_temperature: float = 0.9
    talker_top_k: int = 40
    talker_top_p: float = 0.8
    talker_repetition_penalty: float = 1.05
    solve: str = "block"
    solver_steps: int = STEPS
    reply_ids: Sequence[Sequence[int]] | None = None

    @property
    def reading(self) -> tuple[bool, str]:
        """How the conversation is read: see `Omni.prompt`."""
        return self.use_audio_in_video, self.fps_for_positions

    @property
    def spoken(self) -> Sampling:
        """The sampling of the codes. Raises OmniError."""
        try:
            return Sampling(self.talker_temperature, self.talker_top_p, self.talker_top_k,
                            self.talker_repetition_penalty)
        except OmniError as error:
            raise OmniError(f"talker_{error}") from None


@dataclasses.dataclass(frozen=True)
class Request:
    """Options that have been checked. `limit`: of the tokens of a reply, one for all rows or int32 [B]; `seeds`:
    uint32 [B]; `forced`: int32 [B, F], the tokens of given replies, padded; `speaking`: None for text alone;
    `speakers`: of each row."""

    options: Options
    sampling: Sampling
    limit: int | np.ndarray
    seeds: np.ndarray
    forced: np.ndarray | None
    speaking: Speaking | None = None
    speakers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Reply:
    """An answer. token_ids leave out the end token. codes: int32 [n], the codec ids of the speech without end marks;
    waveform: float32 [480 n] in [-1, 1]; both None if the answer is not spoken, empty for one of fewer than two tokens
    (the end token included). timings: see `summed_up`."""

    text: str
    token_ids: list[int]
    timings: dict[str, float]
    codes: np.ndarray | None = None
    waveform: np.ndarray | None = None
    sample_rate: int = SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class TextChunk:
    """A piece of streamed text and the tokens that it took."""

    text: str
    token_ids: list[int]


@dataclasses.dataclass(frozen=True, eq=False)
class AudioChunk:
    """A piece of streamed sound, float32 [480 n] at 24 kHz, and its codes, int32 [n]."""

    waveform: np.ndarray
    codes: np.ndarray


class TextPieces:
    """Tokens to TextChunks that never end inside a character."""

    def __init__(self, tokenizer: Tokenizer):
        self._decoder, self._held = StreamDecoder(tokenizer), []

    def push(self, tokens: list[int]) -> Iterator[TextChunk]:
        self._held += tokens
        if tokens and (text := self._decoder.push(tokens)):
            yield self._chunk(text)

    def flush(self) -> Iterator[TextChunk]:
        if (text := self._decoder.flush()) or self._held:
            yield self._chunk(text)

    def _chunk(self, text: str) -> TextChunk:
        held, self._held = self._held, []
        return TextChunk(text, held)


def padded_replies(reply_ids: Any, rows: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [B, F], lengths int32 [B]) of Options.reply_ids. F is bucketed, so that few programs are compiled. Raises
    OmniError."""
    several = isinstance(reply_ids, (list, tuple)) and all(isinstance(row, (list, tuple, np.ndarray)) and len(row)
                                                           for row in reply_ids)
    if not several or len(reply_ids) != rows:
        raise OmniError(f"reply_ids must be {rows} lists of tokens, none of them empty: one for each conversation")
    lengths = np.array([len(row) for row in reply_ids], np.int32)
    forced = np.zeros((rows, bucket(int(lengths.max()), 16)), np.int32)
    for own, row in zip(forced, reply_ids, strict=True):
        own[:len(row)] = [whole_number("a token of reply_ids", token, 0, vocabulary - 1) for token in row]
    return forced, lengths


def summed_up(timings: dict[str, float], started: float, samples: int) -> dict[str, float]:
    """Seconds: prepare (media read), prefill, first_token, first_audio, lockstep and token2wav (waited for), total; and
    with sound the real-time factor (seconds of work per second of sound of the whole batch), in all and per stage."""
    timings = {**timings, "total": time.perf_counter() - started}
    if not samples:
        return timings
    stages: dict[str, Any] = {"": "total"} | {f"_{name}": name for name in ("prefill", "lockstep", "token2wav")}
    return timings | {f"real_time_factor{end}": timings.get(name, 0.0) * SAMPLE_RATE / samples
                      for end, name in stages.items()}
