"""Speech for the commands that judge it: how it is asked for, and what listens to it."""

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from omni_jax import Omni
from omni_jax.data.audio import SAMPLE_RATE, load_audio
from omni_jax.data.batch import Prompt
from omni_jax.errors import require
from omni_jax.inference.replies import Options, Reply
from omni_jax.inference.token2wav import SOLVES
from omni_jax.training import recognisers
from omni_jax.training.recognisers import Recogniser, VoiceEncoder
from omni_jax.training.spoken import Spoken, Transcript
from tools._sound import write_wav

TALKER = {"temperature": float, "top_p": float, "top_k": int, "repetition_penalty": float, "max_new_tokens": int}
SPECS = "pocketsphinx:GRAMMAR.jsgf, whisper:DIRECTORY or module:attribute"
VOICE_SPECS = "resemblyzer or module:attribute"


def add_talker_options(parser: argparse.ArgumentParser) -> None:
    """--speaker, --solve, --solver-steps and --talker-*: left out, they are what `Options` says."""
    parser.add_argument("--speaker", metavar="NAME", help="a voice of the checkpoint (left out: Chelsie, or the first)")
    parser.add_argument("--solve", choices=SOLVES, help="of Token2Wav: in chunks of blocks, which streams, "
                        "or the whole clip as the reference does, faster where nobody listens yet (block)")
    parser.add_argument("--solver-steps", type=int, metavar="N", help="of Token2Wav's solver; fewer are faster (9)")
    for name, kind in TALKER.items():
        parser.add_argument(f"--talker-{name.replace('_', '-')}", type=kind, metavar="X" if kind is float else "N",
                            help="of the codes of speech")


def talker_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as fields of `Options`."""
    names = ["solve", "solver_steps", *(f"talker_{name}" for name in TALKER)]
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


@dataclasses.dataclass(frozen=True)
class Listeners:
    """What listens to speech; None for what is not wanted."""

    recogniser: Recogniser | None = None
    voice_encoder: VoiceEncoder | None = None

    def hear(self, reply: Reply, ended: bool, recording: str = "") -> Spoken:
        """A spoken reply with what was heard of it; recording: a file of the speaker's voice."""
        wave, rate = reply.waveform, reply.sample_rate
        heard, likeness = Transcript(), 0.0
        if self.recogniser and wave.size:
            heard = self.recogniser(wave, rate)
        if self.voice_encoder and recording and wave.size:
            likeness = recognisers.similarity(self.voice_encoder(wave, rate), _voice(self.voice_encoder, recording))
        return Spoken(wave, rate, heard, ended, likeness)


@functools.lru_cache(maxsize=256)
def _voice(encoder: VoiceEncoder, recording: str) -> np.ndarray:
    return encoder(load_audio(recording), SAMPLE_RATE)


def find_listeners(recogniser: str | None, voice_encoder: str | None) -> Listeners:
    """From their specs. Raises OmniError if one is missing."""
    return Listeners(recogniser and recognisers.find(recogniser),
                     voice_encoder and recognisers.find_voice_encoder(voice_encoder))


def ended(omni: Omni, prompt: Prompt, options: Options, reply: Reply) -> bool:
    """Whether the Talker drew an end mark, and was not cut off."""
    room = omni.config.talker_config.max_position_embeddings - len(prompt.token_ids) - 2
    return len(reply.codes) < min(options.talker_max_new_tokens, room)


def sounds_directory(option: str, path: str | None) -> Path | None:
    """The directory, made if need be. Raises OmniError."""
    if path is None:
        return None
    require(Path(path).absolute().parent.is_dir() and not Path(path).is_file(), f"{option} {path}",
            "is a file, or lies in a directory that does not exist; give a directory")
    Path(path).mkdir(exist_ok=True)
    return Path(path)


def keep_sound(directory: Path, name: str, reply: Reply) -> Path:
    """Writes a reply as NAME.wav, and returns its path."""
    path = directory / f"{quote(name, safe=' ')}.wav"
    write_wav(path, reply.waveform)
    return path
