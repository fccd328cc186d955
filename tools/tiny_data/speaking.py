"""Speech to learn to say: sentences over the vocabulary and the answers that omni-tiny gives, in its two voices.

Its voices are two of Kokoro's. Held out are sentences, decided by the text; also written is what has words from outside
the vocabulary. Each text is said by one voice, drawn apart from the text. The user asks for it in writing, or for
something else: a Talker has to read what is answered, not what was asked.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.training.spoken import trimmed
from omni_jax.weights.files import whole_directory
from tools._manifests import json_line
from tools.tiny_data import sentences, texts, voices
from tools.tiny_data.examples import HELD_OUT, NUMBERS, TRAIN, as_sentence, pick
from tools.tiny_data.seeing import COLOURS, EVERY, PLACES, at
from tools.tiny_data.voices import Studio, Takes, Voices

VOICES = {"Heart": "af_heart", "Michael": "am_michael"}  # names of the speakers: whose voices they are
OUTSIDE = "outside"  # a part of its own, beside the held-out sentences
ANSWERS = 0.25  # share of the answers, the rest being sentences
ASKED = ("Say: {}", "Read this aloud: {}", "Please say: {}", "What is said?", "What do you see?", "Tell me more.")
PEAK, SPEEDS = 0.5, (0.95, 1.1)


@dataclasses.dataclass(frozen=True)
class Counts:
    """Texts of each part, half of them in each voice."""

    train: int = 640
    held_out: int = 60
    outside: int = 60


@dataclasses.dataclass(frozen=True)
class Job:
    """A text to be said by a voice, which may be a speaker's. seed: of what is drawn for it."""

    name: str
    kind: str
    text: str
    speaker: str | None
    voice: str
    seed: int


def write(out: Path, said: Voices, counts: Counts, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds, OUT/train.jsonl, OUT/held_out.jsonl and OUT/outside.jsonl; returns how many lines of each.
    Raises OmniError."""
    jobs = {part: list(plan(part, count, seed)) for part, count in dataclasses.asdict(counts).items()}
    return write_jobs(out, said, jobs, SPEEDS, workers)


def _take(said: np.ndarray, job: Job, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, samples, rate): as it was said."""
    yield job.name, cut(said, rng), voices.RATE


def write_jobs(out: Path, said: Voices, jobs: dict[str, list[Job]], speeds: tuple[float, float], workers: int,
               take: Takes = _take) -> dict[str, int]:
    """Writes OUT/sounds, of each job its `take`, and a manifest for each part; returns how many lines of each. Raises
    OmniError."""
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        studio = Studio(said, partial / "sounds", speeds, take)
        studio.record([job for own in jobs.values() for job in own], out.name, workers)
        for part, own in jobs.items():
            (partial / f"{part}.jsonl").write_text("".join(json_line(in_writing(job)) for job in own))
    return {part: len(own) for part, own in jobs.items()}


def plan(part: str, count: int, seed: int) -> Iterator[Job]:
    """What is said in a part: no text twice, no held-out sentence in training."""
    number = (TRAIN, HELD_OUT, OUTSIDE).index(part)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7000, number]))
    source, said = sentences.Sentences(rng, outside=part == OUTSIDE), set()
    wanted = lambda text: text not in said and (part == OUTSIDE or texts.is_held_out(text) == (part == HELD_OUT))
    while len(said) < count:
        kind = "answer" if part == TRAIN and rng.random() < ANSWERS else "sentence"
        text = answer(rng) if kind == "answer" else source.draw(wanted)
        if text in said:
            continue
        speaker = tuple(VOICES)[int(rng.integers(len(VOICES)))]
        yield Job(f"{part}-{len(said):05d}", kind, text, speaker, VOICES[speaker], int(rng.integers(2**31)))
        said.add(text)


def answer(rng: np.random.Generator) -> str:
    """What it answers about what it hears and sees."""
    makers = (lambda: pick(rng, EVERY).phrase, lambda: f"{pick(rng, EVERY).phrase} and {pick(rng, EVERY).phrase}",
              lambda: texts.digits(rng), lambda: texts.command(rng), lambda: pick(rng, tuple(COLOURS)),
              lambda: pick(rng, NUMBERS), lambda: at(pick(rng, tuple(PLACES))),
              lambda: pick(rng, tuple(texts.questions().values())), lambda: "I see no picture.",
              lambda: "I hear nothing.")
    shares = np.array([6, 3, 4, 3, 1, 1, 1, 6, 0.2, 0.2])
    return as_sentence(makers[rng.choice(len(makers), p=shares / shares.sum())]())


def cut(said: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a little silence around, float32 [samples] at voices.RATE."""
    return voices.levelled(voices.padded(trimmed(said, voices.RATE), rng, voices.RATE, (0.05, 0.15)), PEAK)


def line(name: str, job: Job, asked: Any) -> dict[str, Any]:
    """Of the manifest: the user's content, and what the assistant says, in sounds/NAME.flac."""
    sound = {"type": "audio", "audio": f"sounds/{name}.flac", **({"speaker": job.speaker} if job.speaker else {})}
    return {"id": name, "kind": job.kind, "messages": [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [{"type": "text", "text": job.text}, sound]}]}


def in_writing(job: Job) -> dict[str, Any]:
    """The same, in reply to writing."""
    return line(job.name, job, ASKED[job.seed % len(ASKED)].format(job.text))
