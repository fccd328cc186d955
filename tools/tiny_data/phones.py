"""The phones that flite speaks with, and when each of them sounds.

In what is learnt a letter stands for a phone, each after a space, for so it is one token.
"""

import string
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from tools.smoke_speech import run_flite

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
        printed = run_flite(text, voice, path, "-psdur")
        samples, rate = soundfile.read(path, dtype="float32")
    pairs = (entry.split(":") for entry in printed.split())
    return samples, rate, [(phone, float(end)) for phone, end in pairs]
