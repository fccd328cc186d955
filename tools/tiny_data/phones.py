"""The phones that flite speaks with, and when each of them sounds.

In what is learnt a letter stands for a phone, each after a space, for so it is one token.
"""

import string
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from omni_jax.errors import require

PHONES = ("pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih",
          "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y",
          "z", "zh", "axr")
_LETTERS = dict(zip(PHONES, string.ascii_letters, strict=False))


def spelt(phones: Iterable[str]) -> str:
    return "".join(f" {_LETTERS[phone]}" for phone in phones)


def timed(text: str, voice: str) -> tuple[np.ndarray, int, list[tuple[str, float]]]:
    """What flite says: samples, their rate, and the phones, each with the second at which it ends; "pau" is silence.
    Raises OmniError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        ended = subprocess.run(["flite", "-voice", voice, "-psdur", "-t", text, "-o", str(path)], capture_output=True,
                               text=True)
        require(ended.returncode == 0 and path.is_file(), f"flite -voice {voice}",
                f"failed ({ended.stderr.strip()[:200]}); install Debian's package flite")
        samples, rate = soundfile.read(path, dtype="float32")
    pairs = (entry.split(":") for entry in ended.stdout.split())
    return samples, rate, [(phone, float(end)) for phone, end in pairs]
