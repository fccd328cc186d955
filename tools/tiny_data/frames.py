"""Speech of flite with the phone that sounds at each moment: an audio tower learns phones so, before it learns words.

An answer is as long as the sound: a phone for each of the tower's vectors.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile

from omni_jax.weights.files import progress_bar, whole_directory
from tools._manifests import json_line
from tools.tiny_data import hearing, phones, voices
from tools.tiny_data.examples import HELD_OUT, TRAIN, spread

SECONDS = 0.04  # of one of the tower's vectors


def write(out: Path, train: int, held_out: int, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds, OUT/train.jsonl and OUT/held_out.jsonl; returns how many lines of each. Raises OmniError."""
    written = {}
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        for number, (part, count) in enumerate(((TRAIN, train), (HELD_OUT, held_out))):
            tasks = [(part, i, [seed, 4000 + number, i]) for i in range(count)]
            title, spoken = f"{out.name}, {part}", functools.partial(_spoken, partial)
            with progress_bar(count, title, True, "") as bar, (partial / f"{part}.jsonl").open("w") as file:
                for line in spread(spoken, tasks, workers):
                    file.write(json_line(line))
                    bar.update()
            written[part] = count
    return written


def _spoken(folder: Path, task: tuple[str, int, list[int]]) -> dict[str, Any]:
    """The line of a text, whose sound is written as well."""
    part, number, key = task
    rng = np.random.default_rng(np.random.SeedSequence(key))
    kind = str(rng.choice(tuple(hearing.SHARES), p=tuple(hearing.SHARES.values())))
    text, voice = hearing.draw_text(kind, part == HELD_OUT, rng), voices.FLITE[number % len(voices.FLITE)]
    wave, rate, ends = phones.timed(text, voice)
    pitch = float(rng.uniform(0.87, 1.15))
    wave = librosa.resample(wave, orig_sr=rate * pitch, target_sr=hearing.RATE, res_type="soxr_hq")
    sounding = _at_middles([(phone, end / pitch) for phone, end in ends], len(wave) / hearing.RATE)
    name = f"{part}-{number:05d}"
    heard = voices.received(voices.sent(wave, rng, hearing.RATE)[: len(wave)], rng)
    soundfile.write(folder / "sounds" / f"{name}.flac", heard, hearing.RATE)
    sound = {"type": "audio", "audio": f"sounds/{name}.flac"}
    messages = [{"role": "user", "content": [sound]}, {"role": "assistant", "content": phones.spelt(sounding)}]
    return {"id": name, "kind": kind, "voice": voice, "messages": messages}


def _at_middles(timed: list[tuple[str, float]], seconds: float) -> Iterator[str]:
    """The phone in the middle of each of the tower's vectors."""
    ends = np.array([end for _, end in timed])
    for middle in np.arange(SECONDS / 2, seconds, SECONDS):
        yield timed[min(int(np.searchsorted(ends, middle)), len(timed) - 1)][0]
