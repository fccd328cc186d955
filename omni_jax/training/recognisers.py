"""Who listens to speech: recognisers, which write down what they hear, and encoders of voices.

None of them is part of omni_jax: each is found by a spec, and what it needs is checked at once.
"""

import difflib
import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import librosa
import numpy as np

from omni_jax.errors import OmniError, require
from omni_jax.training.spoken import Transcript, Word

Recogniser = Callable[[np.ndarray, int], Transcript]  # of float32 [samples] at a rate in Hz
VoiceEncoder = Callable[[np.ndarray, int], np.ndarray]  # to float32 [size]
RATE = 16_000  # Hz: what both packages' models hear
# A grammar of equally likely words says little, and short words must not be heard in every noise.
POCKETSPHINX = {"lm": None, "lw": 2.0, "wip": 1e-3, "loglevel": "FATAL"}


def find(spec: str) -> Recogniser:
    """The recogniser that a spec names, loaded: "pocketsphinx:FILE" (a JSGF grammar, English), "whisper:DIRECTORY" (a
    model of faster-whisper) or "module:attribute" (any callable, see Recogniser). Raises OmniError in one sentence that
    says how to get what is missing."""
    kind, _, rest = spec.partition(":")
    makers = {"pocketsphinx": _pocketsphinx, "whisper": _whisper}
    return makers[kind](rest) if kind in makers else _attribute(spec, "recogniser", ("pocketsphinx:FILE",
                                                                                     "whisper:DIRECTORY"))


def find_voice_encoder(spec: str) -> VoiceEncoder:
    """"resemblyzer" or "module:attribute" (see VoiceEncoder). Raises OmniError as `find` does."""
    return _resemblyzer() if spec == "resemblyzer" else _attribute(spec, "voice encoder", ("resemblyzer",))


def _attribute(spec: str, what: str, known: tuple[str, ...]) -> Callable:
    module, colon, name = spec.partition(":")
    near = difflib.get_close_matches(module, [each.partition(":")[0] for each in known], 1, 0.7)
    hint = f"did you mean {near[0]}? Give" if near else "give"
    require(bool(colon and name), f"{what} {spec!r}", f"{hint} {', '.join(known)} or module:attribute")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise OmniError(f"{what} {spec!r}: {error}; {hint} {', '.join(known)} or a module that Python finds") from None
    require(callable(found), f"{what} {spec!r}", f"{module} has no function {name}; check its name")
    return found


def _package(name: str, install: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise OmniError(f"{spec} needs the package {name}, which is not installed; run pip install {install}") from None


def _heard(wave: np.ndarray, rate: int) -> np.ndarray:
    """float32 [samples] at RATE."""
    wave = np.asarray(wave, np.float32)
    return wave if rate == RATE else librosa.resample(wave, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")


def _pocketsphinx(file: str) -> Recogniser:
    package = _package("pocketsphinx", "pocketsphinx==5.1.1", "pocketsphinx")
    require(Path(file).is_file(), f"pocketsphinx:{file}", "there is no such grammar; give a JSGF file, such as "
                                                          "tools.smoke_speech writes")
    try:
        decoder = package.Decoder(jsgf=file, **POCKETSPHINX)
    except RuntimeError:
        raise OmniError(f"pocketsphinx:{file}: is no JSGF grammar, or has words that pocketsphinx's English dictionary "
                        "lacks; correct it") from None
    return functools.partial(_by_pocketsphinx, decoder)


def _by_pocketsphinx(decoder: Any, wave: np.ndarray, rate: int) -> Transcript:
    samples = np.round(np.clip(_heard(wave, rate), -1, 1) * 32767).astype("<i2")
    if samples.size < RATE // 10:  # less than any word, and than its front end takes
        return Transcript()
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return Transcript()
    frame = 1 / decoder.config["frate"]
    # Fillers are written <sil> or [NOISE], and other pronunciations of a word as word(2).
    words = tuple(Word(re.sub(r"\(\d+\)$", "", each.word), each.start_frame * frame, (each.end_frame + 1) * frame)
                  for each in decoder.seg() if each.word[0] not in "<[(")
    return Transcript(" ".join(word.text for word in words), words)


def _whisper(directory: str) -> Recogniser:
    package = _package("faster_whisper", "faster-whisper", "whisper")
    require((Path(directory) / "model.bin").is_file(), f"whisper:{directory}",
            "is no directory of a faster-whisper model (it has no model.bin); download one from "
            "huggingface.co/Systran, such as faster-whisper-large-v3")
    return functools.partial(_by_whisper, package.WhisperModel(directory, local_files_only=True))


def _by_whisper(model: Any, wave: np.ndarray, rate: int) -> Transcript:
    segments = list(model.transcribe(_heard(wave, rate), word_timestamps=True)[0])
    words = tuple(Word(word.word.strip(), word.start, word.end) for each in segments for word in each.words or ())
    return Transcript("".join(each.text for each in segments).strip(), words)


def _resemblyzer() -> VoiceEncoder:
    package = _package("resemblyzer", "resemblyzer", "resemblyzer")
    encoder = package.VoiceEncoder("cpu", verbose=False)
    return lambda wave, rate: encoder.embed_utterance(package.preprocess_wav(_heard(wave, rate), source_sr=RATE))


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine between two voices; 0 if one is no vector at all."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.dot(one, other)) / lengths if lengths else 0.0
