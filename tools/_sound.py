"""Sound out: WAV files that are whole at every moment, or raw samples to standard output for a player."""

import contextlib
import os
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from omni_jax import OmniError

RATE = 24_000
STANDARD_OUTPUT = "-"


def pcm(waveform: np.ndarray) -> bytes:
    """16-bit little-endian samples of a waveform in [-1, 1]."""
    return np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()


def write_wav(path: str | Path, waveform: np.ndarray) -> None:
    """A mono WAV file of 16 bits at 24 kHz, written whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with wave.open(str(partial), "wb") as file:
            _describe(file)
            file.writeframes(pcm(waveform))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def sink(out: str | None) -> Iterator[Callable[[np.ndarray], None]]:
    """What takes pieces of sound as they come: a WAV file, whose header is right after every piece, or with "-" raw
    samples on standard output (16 bits, mono, 24 kHz); None: nobody."""
    if out is None:
        yield lambda waveform: None
    elif out == STANDARD_OUTPUT:
        yield _to_standard_output
    else:
        with wave.open(out, "wb") as file:
            _describe(file)
            yield lambda waveform: file.writeframes(pcm(waveform))


def check_out(out: str | None) -> None:
    """Raises OmniError if a sound file could not be written there; asked before long work."""
    if out in (None, STANDARD_OUTPUT):
        return
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OmniError(f"--out {out}: is a directory, or lies in one that does not exist; give a file's name")


def _to_standard_output(waveform: np.ndarray) -> None:
    sys.stdout.buffer.write(pcm(waveform))
    sys.stdout.buffer.flush()


def _describe(file: wave.Wave_write) -> None:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(RATE)
