"""The facade: `load` a checkpoint, then ask it. See the README for ten lines that work."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.batch import Prompt, collate
from omni_jax.data.processor import Processor
from omni_jax.errors import OmniError, require
from omni_jax.inference import generate as generation
from omni_jax.inference import steps
from omni_jax.inference.generate import Session
from omni_jax.inference.networks import Network
from omni_jax.inference.replies import (
    AudioChunk,
    Options,
    Reply,
    Request,
    TextChunk,
    TextPieces,
    padded_replies,
    summed_up,
)
from omni_jax.inference.sampling import Sampling, row_seeds, whole_number
from omni_jax.inference.stream import Event, events
from omni_jax.inference.voices import Voices, checked_solve, checked_steps
from omni_jax.models.dit import STEPS
from omni_jax.weights import Speaker
from omni_jax.weights.files import progress_bar

Conversation = Sequence[dict[str, Any]]
END = "<|im_end|>"  # of a turn


class Omni:
    """A loaded checkpoint. All methods take conversations as in Qwen's own examples and raise OmniError."""

    def __init__(self, config: OmniConfig, network: Network, processor: Processor, sampling: Sampling,
                 voices: Voices | str = "this model was put together without a Talker"):
        """voices: the speaking half, or why there is none."""
        self.config, self.network, self.processor, self.sampling = config, network, processor, sampling
        self.voices = voices

    def generate(self, conversation: Conversation | Sequence[Conversation], *, seed: int | Sequence[int] = 0,
                 progress: bool = False, **options: Any) -> Reply | list[Reply]:
        """The reply to a conversation, or the replies to a list of conversations (one batch).

        seed: one for all rows or one a row; a row's draws depend on its seed alone. progress: count codes on stderr if
        it takes over a second. options: the fields of `Options`.
        """
        started = time.perf_counter()
        single = not _is_batch(conversation)
        conversations = [conversation] if single else conversation
        request = self.request(Options(**options), row_seeds(seed, len(conversations)))
        prompts = [self.prompt(each, *request.options.reading) for each in conversations]
        replies = self.finish(self.begin(prompts, request, started), request, started, progress)
        return replies[0] if single else replies

    def stream(self, conversation: Conversation, *, seed: int = 0, **options: Any) -> Iterator[TextChunk | AudioChunk]:
        """The same reply as `generate`'s, in pieces as they are ready; never half a character. The prompt is read
        before this returns, so that errors come here and not at the first piece. Closing the iterator frees all."""
        started = time.perf_counter()
        request = self.request(Options(**options), row_seeds(seed, 1))
        prompt = self.prompt(conversation, *request.options.reading)
        return self.chunks(self.begin([prompt], request, started), request, started)

    def token2wav(self, codes: Sequence[int], speaker: str | None = None, solve: str = "block", seed: int = 0,
                  noise: np.ndarray | None = None, solver_steps: int = STEPS) -> np.ndarray:
        """float32 [480 * codes] at 24 kHz: the sound of codec ids in a speaker's voice.

        noise: float32 [2 * codes, 80], what the solver starts from; None: drawn from the seed. solve, solver_steps: see
        `Options`. Raises OmniError.
        """
        voices = self._speaking_half()
        return voices.synthesize(codes, voices.name(speaker), checked_solve(solve), checked_steps(solver_steps),
                                 row_seeds(seed, 1), noise)

    @property
    def speakers(self) -> Mapping[str, Speaker]:
        """The voices by their names; empty without speech."""
        return {} if isinstance(self.voices, str) else self.voices.speakers

    def thinker_logits(self, conversation: Conversation, use_audio_in_video: bool = False, last: int | None = None,
                       fps_for_positions: str = "true") -> np.ndarray:
        """float32 [T, V]: the logits after each token of the prompt, or after its `last` tokens."""
        prompt = self.prompt(conversation, use_audio_in_video, fps_for_positions)
        return self.prompt_logits(prompt, last)

    def position_ids(self, conversation: Conversation, use_audio_in_video: bool = False,
                     fps_for_positions: str = "true") -> np.ndarray:
        """int32 [3, T]: the TMRoPE ids (time, height, width) of the prompt."""
        prompt = self.prompt(conversation, use_audio_in_video, fps_for_positions)
        ids, _ = generation.positions(self.network, collate([prompt], self.config))
        return np.asarray(ids)[:, 0, : len(prompt.token_ids)]

    def prompt(self, conversation: Conversation, use_audio_in_video: bool = False,
               fps_for_positions: str = "true") -> Prompt:
        """The conversation as tokens and features. Raises OmniError if it leaves no room for a reply."""
        return self.processor.prompt(conversation, use_audio_in_video, fps_for_positions, max_new_tokens=1)

    def reply_ids(self, text: str) -> list[int]:
        """The tokens of a reply of this text, its end mark included. Given as `reply_ids` (a list for each row), they
        are what is said: the Talker speaks them as any reply."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer.encode(text), tokenizer.token_id(END)]

    def prompt_logits(self, prompt: Prompt, last: int | None = None) -> np.ndarray:
        """float32 [T, V] of a prepared prompt; see `thinker_logits`."""
        T = len(prompt.token_ids)
        first = 0 if last is None else max(0, T - whole_number("last", last, 1))
        rows: list[np.ndarray] = []

        def keep(offset: int, hidden: jax.Array) -> None:
            if offset + hidden.shape[1] > first and offset < T:
                scores = np.asarray(steps.logits(self.network.graphdef, self.network.params, hidden))[0]
                rows.append(scores[max(0, first - offset): T - offset])

        generation.read(self.network, collate([prompt], self.config, devices=self.network.mesh.size), keep)
        return np.concatenate(rows)

    def reply_limit(self, max_new_tokens: Any) -> int:
        """The longest reply that is asked for, at most the context. Raises OmniError."""
        context = self.config.thinker_config.text_config.max_position_embeddings
        return min(whole_number("max_new_tokens", max_new_tokens, 1), context)

    def sampling_with(self, temperature, top_p, top_k, repetition_penalty) -> Sampling:
        """The default settings with those that are given."""
        given = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty}
        return dataclasses.replace(self.sampling, **{k: v for k, v in given.items() if v is not None})

    def request(self, options: Options, seeds: np.ndarray) -> Request:
        """The options checked, for rows with these seeds (uint32 [B]). Raises OmniError."""
        sampling = self.sampling_with(options.temperature, options.top_p, options.top_k, options.repetition_penalty)
        limit, spoken, forced = self.reply_limit(options.max_new_tokens), options.spoken, None
        if options.reply_ids is not None:
            vocabulary = self.config.thinker_config.text_config.vocab_size
            forced, limit = padded_replies(options.reply_ids, len(seeds), vocabulary)
        checked_solve(options.solve)
        checked_steps(options.solver_steps)
        wanted = options.return_audio or options.speaker is not None
        if options.return_audio is False or (isinstance(self.voices, str) and not wanted):
            return Request(options, sampling, limit, seeds, forced)
        voices = self._speaking_half()
        names = voices.names(options.speaker, len(seeds))
        return Request(options, sampling, limit, seeds, forced, voices.speaking(names, spoken, options), names)

    def _speaking_half(self) -> Voices:
        if isinstance(self.voices, str):
            raise OmniError(self.voices)
        return self.voices

    def begin(self, prompts: list[Prompt], request: Request, started: float, before: Session | None = None) -> Session:
        """Prefills a batch of prompts (after the turns of `before`) and draws the first token."""
        context = self.config.thinker_config.text_config.max_position_embeddings
        used = int(before.cache.used) if before else 0
        batch = collate(prompts, self.config, devices=self.network.mesh.size)
        prepared = time.perf_counter() - started
        limits = np.minimum(request.limit, context - used - batch.lengths)
        require(request.forced is None or (limits == request.limit).all(), "reply_ids",
                f"and their prompt exceed the context of {context} tokens; give a shorter reply")
        session = generation.begin(self.network, batch, request.sampling, limits, request.seeds, before,
                                   request.speaking, request.forced)
        session.timings |= {"prepare": prepared, "first_token": time.perf_counter() - started}
        return session

    def finish(self, session: Session, request: Request, started: float, progress: bool = False) -> list[Reply]:
        """Decodes to the end."""
        if request.speaking:
            spoken = self._speak(session, request, started, progress)
        else:
            generation.advance(self.network, session, session.limit)
            session.handed_out = session.limit
            spoken = [(None, None)] * len(request.seeds)
        rows = session.replies(self.network.ends)  # waits for the device, so before the time is taken
        samples = sum(0 if waveform is None else len(waveform) for _, waveform in spoken)
        timings = summed_up(session.timings, started, samples)
        return [Reply(self.processor.tokenizer.decode(tokens), tokens, timings, *own)
                for tokens, own in zip(rows, spoken, strict=True)]

    def _speak(self, session: Session, request: Request, started: float,
               progress: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """(codes, waveform) of each row, to the end."""
        codes = [[np.zeros(0, np.int32)] for _ in request.seeds]
        sounds = [[np.zeros(0, np.float32)] for _ in request.seeds]
        with progress_bar(None, "speaking", progress, " codes") as bar:
            for event in self._events(session, request):
                _append(codes, event.codes)
                bar.update(sum(map(len, event.codes)))
                for sound in event.sounds:
                    _append(sounds, _hear(sound, session, started))
        return [(np.concatenate(own), np.concatenate(heard)) for own, heard in zip(codes, sounds, strict=True)]

    def chunks(self, session: Session, request: Request, started: float) -> Iterator[TextChunk | AudioChunk]:
        """Decodes the one row of a session, piece by piece."""
        text = TextPieces(self.processor.tokenizer)
        if request.speaking is None:
            for (token,) in generation.stream(self.network, session):
                if token in self.network.ends:
                    break
                yield from text.push([token])
        else:
            codes = np.zeros(0, np.int32)
            for event in self._events(session, request):
                yield from text.push(event.tokens[0].tolist())
                codes = np.concatenate([codes, event.codes[0]])
                for sound in event.sounds:
                    waveform, = _hear(sound, session, started)
                    own, codes = np.split(codes, [sound.codes[0]])
                    if own.size:
                        yield AudioChunk(waveform, own)
        yield from text.flush()

    def _events(self, session: Session, request: Request) -> Iterator[Event]:
        options = request.options
        push = self._speaking_half().push(request.speakers, request.seeds, options.solve, options.solver_steps)
        return events(self.network, session, push)

    def chat(self, **options: Any) -> Any:
        """A conversation that keeps what it has read: see `Chat`. `options` are those of `generate`."""
        from omni_jax.inference.chat import Chat

        return Chat(self, **options)


def _is_batch(conversation: Any) -> bool:
    """Whether this is a list of conversations. What is neither is for the prompt's checks to name."""
    return isinstance(conversation, Sequence) and len(conversation) > 0 and isinstance(conversation[0], (list, tuple))


def _append(rows: list[list[np.ndarray]], new: list[np.ndarray]) -> None:
    for row, part in zip(rows, new, strict=True):
        row.append(part)


def _hear(sound: Any, session: Session, started: float) -> list[np.ndarray]:
    """The waveforms of a sound's rows, as soon as they are there."""
    waiting = time.perf_counter()
    rows = sound.rows()
    session.took("token2wav", waiting)
    if any(row.size for row in rows):
        session.timings.setdefault("first_audio", time.perf_counter() - started)
    return rows
