"""Spoken requests: what is said, and what is the answer to it. Also the same questions typed, and nothing to hear.

Of Kokoro's voices, which are slow to make and sound natural, each recording is heard in several ways; flite's, which
cost nothing, bring many more texts. Held-out texts and the voices `voices.HELD_OUT` are never trained on.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile

from omni_jax.weights.files import whole_directory
from tools._manifests import json_line
from tools.tiny_data import phones, texts, voices
from tools.tiny_data.examples import HELD_OUT, TRAIN
from tools.tiny_data.voices import Studio, Voices

RATE = 16_000  # of what the model hears
KINDS = {"digits": texts.digits, "command": texts.command, "sentence": texts.sentence, "question": texts.question}
CLOSED = ("command", "question")  # sets of which all is trained on: only the voices are held out
SHARES = {"digits": 0.17, "command": 0.2, "sentence": 0.4, "question": 0.23}
ASKED = ("What is said?", "Write down what you hear.", "What do you hear?")
SILENCE = "I hear nothing."
SPEEDS = (0.85, 1.2)
NOISE = 10.0  # dB of the noisy held-out recordings


@dataclasses.dataclass(frozen=True)
class Job:
    """A text to be said by a voice. seed: of all that is drawn for it; takes: ways in which it is heard."""

    name: str
    kind: str
    text: str
    voice: str
    seed: int
    takes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Recordings of each sort, and ways in which a training recording of Kokoro is heard (the first: as it is)."""

    kokoro: int = 3060
    flite: int = 6000
    held_out: int = 80  # of each held-out voice
    takes: int = 6


def write(out: Path, said: Voices, counts: Counts, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds, OUT/train.jsonl and OUT/held_out.jsonl, and of the same speech phones_*.jsonl, in which it is
    spelt in phones, and answers_*.jsonl, the questions alone; returns how many lines of each. Raises OmniError."""
    jobs = {TRAIN: list(training(counts, seed)), HELD_OUT: list(held_out(counts, seed))}
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        studio = Studio(said, partial / "sounds", SPEEDS, takes_of)
        studio.record([*jobs[TRAIN], *jobs[HELD_OUT]], out.name, workers)
        lines = {part: [line for job in own for line in _lines(job)] for part, own in jobs.items()}
        for part in jobs:
            lines[f"phones_{part}"] = [_spelt(line) for line in lines[part] if "metric" in line]
            lines[f"answers_{part}"] = [line for job in jobs[part] if job.kind == "question" for line in _answers(job)]
        lines[TRAIN] += list(_typed()) + list(_silent(partial / "sounds", 200, seed))
        for part, own in lines.items():
            (partial / f"{part}.jsonl").write_text("".join(map(json_line, own)))
    return {part: len(own) for part, own in lines.items()}


def training(counts: Counts, seed: int) -> Iterator[Job]:
    """Kokoro's voices in turn, then flite's."""
    for count, speakers, takes in ((counts.kokoro, voices.LEARNT, counts.takes), (counts.flite, voices.FLITE, 1)):
        for i in range(count):
            voice = speakers[i % len(speakers)]
            heard = ("clean", *["heard"] * (takes - 1)) if takes > 1 else ("heard",)
            yield _job(f"{voice}-{i:05d}", voice, False, np.random.SeedSequence([seed, len(speakers), i]), heard)


def held_out(counts: Counts, seed: int) -> Iterator[Job]:
    for j, voice in enumerate(voices.HELD_OUT):
        for i in range(counts.held_out):
            sequence = np.random.SeedSequence([seed, 1000 + j, i])
            yield _job(f"{voice}-{i:05d}", voice, True, sequence, ("clean", "noisy"))


def _job(name: str, voice: str, held_out: bool, sequence: np.random.SeedSequence, takes: tuple[str, ...]) -> Job:
    rng = np.random.default_rng(sequence)
    kind = str(rng.choice(tuple(SHARES), p=tuple(SHARES.values())))
    return Job(name, kind, draw_text(kind, held_out, rng), voice, int(rng.integers(2**31)), takes)


def draw_text(kind: str, held_out: bool, rng: np.random.Generator) -> str:
    while True:
        text = KINDS[kind](rng)
        if kind in CLOSED or texts.is_held_out(text) == held_out:
            return text


def takes_of(said: np.ndarray, job: Job, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, samples, rate) of each way in which it is heard."""
    for number, take in enumerate(job.takes):
        yield take_name(job, number), _taken(said, take, rng), RATE


def _taken(said: np.ndarray, take: str, rng: np.random.Generator) -> np.ndarray:
    if take == "heard":
        return voices.heard(said, rng, RATE)
    wave = librosa.resample(said, orig_sr=voices.RATE, target_sr=RATE, res_type="soxr_hq")
    wave = voices.padded(wave, rng, RATE)
    return voices.levelled(voices.noisy(wave, NOISE, rng) if take == "noisy" else wave, 0.7)


def take_name(job: Job, number: int) -> str:
    """Of a take: its line's id, and its file's name."""
    return f"{job.name}-{number}"


def _lines(job: Job) -> Iterator[dict[str, Any]]:
    """A line for each take to write it down, and for questions one to answer it."""
    rng = np.random.default_rng(job.seed)
    for number, take in enumerate(job.takes):
        name = take_name(job, number)
        sound = {"type": "audio", "audio": f"sounds/{name}.flac"}
        words = {"type": "text", "text": ASKED[int(rng.integers(len(ASKED)))]}
        yield {**_line(name, f"{job.kind}-{take}", [sound, words], job.text, job.voice), "metric": "wer"}
        if job.kind == "question":
            yield _answered(name, job, take)


def _answered(name: str, job: Job, take: str) -> dict[str, Any]:
    sound = {"type": "audio", "audio": f"sounds/{name}.flac"}
    return _line(f"{name}-answer", f"answer-{take}", [sound], texts.questions()[job.text], job.voice)


def _answers(job: Job) -> Iterator[dict[str, Any]]:
    """Of each take the answer, and in a second turn what was asked: what is heard is encoded once for both."""
    for number, take in enumerate(job.takes):
        line = _answered(take_name(job, number), job, take)
        asked = ASKED[(job.seed + number) % len(ASKED)]
        line["messages"] += [{"role": "user", "content": asked}, {"role": "assistant", "content": job.text}]
        yield line


def _spelt(line: dict[str, Any]) -> dict[str, Any]:
    """The same speech, in phones and unasked. flite's voices differ in none, so one of them spells for all."""
    (sound, _), text = (message["content"] for message in line["messages"])
    return _line(line["id"], line["kind"], [sound], _phones(text), line["voice"])


@functools.cache
def _phones(text: str) -> str:
    return phones.spelt(phone for phone, _ in phones.timed(text, voices.FLITE[0])[2])


def _typed() -> Iterator[dict[str, Any]]:
    """Questions in writing, and to be told what is said without any sound."""
    for i, (question, answer) in enumerate([*texts.questions().items(), *((each, SILENCE) for each in ASKED)]):
        for turn in range(4):  # they are few
            yield _line(f"typed-{i:03d}-{turn}", "typed", question, answer, "")


def _silent(folder: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Sounds in which nothing is said: noise alone."""
    for i in range(count):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 5000, i]))
        wave = voices.noisy(np.full(int(RATE * rng.uniform(0.5, 3)), 1e-3), -20.0, rng)
        name = f"silence-{i:03d}"
        soundfile.write(folder / f"{name}.flac", voices.levelled(wave, float(10 ** rng.uniform(-3, -1))), RATE)
        content = [{"type": "audio", "audio": f"sounds/{name}.flac"}]
        asked = [] if i % 2 else [{"type": "text", "text": ASKED[i % len(ASKED)]}]
        yield _line(name, "silence", content + asked, SILENCE, "")


def _line(name: str, kind: str, content: Any, answer: str, voice: str) -> dict[str, Any]:
    return {"id": name, "kind": kind, "voice": voice,
            "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}
