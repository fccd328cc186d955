"""The speaking half of a loaded checkpoint: Talker, Token2Wav and the voices."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.speech import check_codes
from omni_jax.errors import OmniError
from omni_jax.inference import token2wav
from omni_jax.inference.networks import Network
from omni_jax.inference.replies import Options
from omni_jax.inference.sampling import Sampling, whole_number
from omni_jax.inference.speech import Speaking
from omni_jax.inference.stream import Push
from omni_jax.inference.token2wav import Synthesizer
from omni_jax.weights import Speaker

DEFAULT = "Chelsie"


def checked_solve(solve: Any) -> str:
    """`solve` itself. Raises OmniError."""
    if solve not in token2wav.SOLVES:
        raise OmniError(f"solve is {solve!r}; it must be one of {', '.join(token2wav.SOLVES)}")
    return solve


def checked_steps(steps: Any) -> int:
    """`steps` themselves. Raises OmniError."""
    return whole_number("solver_steps", steps, 1)


class Voices:
    """What speaks. `talker`: None where only codes that are given are spoken. `speakers`: by name, possibly none."""

    def __init__(self, config: OmniConfig, talker: Network | None, synthesizer: Synthesizer,
                 speakers: Mapping[str, Speaker], directory: Path):
        self.config, self.talker, self.synthesizer, self.speakers = config, talker, synthesizer, dict(speakers)
        self.directory = directory
        size = config.thinker_config.text_config.vocab_size
        for name, speaker in self.speakers.items():
            whole_number(f"{directory}: speaker {name}'s bos_token", speaker.bos_token, 0, size - 1)
        self._voice = functools.cache(lambda name: token2wav.encode_speaker(synthesizer, self.speakers[name]))
        self._solving = functools.cache(self._with_steps)

    def name(self, speaker: Any) -> str:
        """The speaker of that name, or of none. Raises OmniError."""
        known = ", ".join(self.speakers)
        if not known:
            raise OmniError(f"{self.directory}: has no speakers (neither speakers.safetensors nor spk_dict.pt); add "
                            "them with tools.speakers, or give return_audio=False")
        if speaker is None:
            return DEFAULT if DEFAULT in self.speakers else next(iter(self.speakers))
        if not isinstance(speaker, str) or speaker not in self.speakers:
            raise OmniError(f"speaker {speaker!r} is unknown; this checkpoint has {known}")
        return speaker

    def names(self, speaker: Any, rows: int) -> tuple[str, ...]:
        """The speaker of each row, from one for all of them or one a row (see `name`). Raises OmniError."""
        if not isinstance(speaker, (list, tuple)):
            return (self.name(speaker),) * rows
        if len(speaker) != rows:
            raise OmniError(f"speaker has {len(speaker)} names for {rows} conversations; give one, or one each")
        return tuple(map(self.name, speaker))

    def speaking(self, names: Sequence[str], sampling: Sampling, options: Options) -> Speaking:
        """That a batch is to be spoken, each row in the voice of its speaker. Raises OmniError."""
        config = self.config.talker_config
        limit = whole_number("talker_max_new_tokens", options.talker_max_new_tokens, 1)
        never = np.arange(config.vocab_size) >= self.config.token2wav_config.dit_config.codec_rows
        never[list(self.talker.ends)] = False
        never[config.tts_codec_start_token_id] = True
        first_tokens = np.array([self.speakers[name].bos_token for name in names], np.int32)
        return Speaking(self.talker, never, sampling, min(limit, config.max_position_embeddings), first_tokens)

    def _with_steps(self, steps: int) -> Synthesizer:
        """Token2Wav whose solver takes so many steps."""
        own = self.synthesizer
        return own if steps == own.table.steps else token2wav.prepare(own.config, own.graphdef, own.params, own.mesh,
                                                                      steps)

    def push(self, names: Sequence[str], seeds: np.ndarray, solve: str, steps: int) -> Push:
        """What makes sounds of the codes of a batch whose rows have these speakers and seeds. solve, steps: see
        `Options`."""
        voices, synthesizer = list(map(self._voice, names)), self._solving(steps)
        if solve == "whole":
            return _Whole(lambda codes: token2wav.synthesize(synthesizer, voices, codes, seeds, solve="whole"))
        session = token2wav.begin(synthesizer, voices, seeds)
        return lambda codes, ended: token2wav.push(session, codes, ended)

    def spoken(self, codes: Sequence[np.ndarray], names: Sequence[str], seeds: np.ndarray, solve: str,
               steps: int) -> list[np.ndarray]:
        """float32 [samples] of each row of codes, int32 [n], which are all there; see `push`."""
        push = self.push(names, seeds, solve, steps)
        parts = [sound.rows() for sound in push(list(codes), np.ones(len(codes), bool))]
        return [np.concatenate(row) for row in zip(*parts, strict=True)]

    def synthesize(self, codes: Any, name: str, solve: str, steps: int, seeds: np.ndarray, noise: Any) -> np.ndarray:
        """float32 [samples] of one row of codes. Raises OmniError."""
        config = self.config.token2wav_config
        codes = check_codes(codes, config.dit_config.codec_rows)
        noise = None if noise is None else [token2wav.check_noise(config, noise, codes)]
        waveform, = token2wav.synthesize(self._solving(steps), [self._voice(name)], [codes], seeds, solve, noise)
        return waveform


class _Whole:
    """Gathers all codes of a batch, and makes one sound of them at the end."""

    def __init__(self, synthesize: Any):
        self._synthesize, self._codes = synthesize, None

    def __call__(self, codes: list[np.ndarray], ended: np.ndarray) -> list["_Whole"]:
        before = self._codes or [np.zeros(0, np.int32)] * len(codes)
        self._codes = [np.concatenate(pair) for pair in zip(before, codes, strict=True)]
        return [self] if ended.all() else []

    @property
    def codes(self) -> list[int]:
        return [len(row) for row in self._codes]

    def rows(self) -> list[np.ndarray]:
        return self._synthesize(self._codes)
