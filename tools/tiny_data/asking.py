"""Questions about pictures, asked aloud: those of `seeing` that name no thing, so that few recordings say them all.

A line shows a picture of OUT/../seeing and lets its question be heard instead of read. Held out are the pictures and
answers that are there, asked by the voices `voices.HELD_OUT`.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.errors import require
from omni_jax.weights.files import whole_directory
from tools._manifests import json_line
from tools.tiny_data import hearing, seeing, voices
from tools.tiny_data.examples import HELD_OUT, TRAIN
from tools.tiny_data.voices import Studio, Voices

QUESTIONS = (*seeing.NAME, *seeing.COLOUR[:2], *seeing.COUNT[:2])


@dataclasses.dataclass(frozen=True)
class Counts:
    """Lines of each part, and ways in which a recording for training is heard (the first: as it is)."""

    train: int = 8000
    held_out: int = 600
    takes: int = 4


def write(out: Path, said: Voices, counts: Counts, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds, OUT/train.jsonl and OUT/held_out.jsonl; returns how many lines of each. Raises OmniError."""
    pictures = out.parent / "seeing"
    require(pictures.is_dir(), str(pictures), "is not there, and its pictures are asked about; make it first")
    jobs = {TRAIN: list(_jobs((*voices.LEARNT, *voices.FLITE), ("clean", *["heard"] * (counts.takes - 1)), seed)),
            HELD_OUT: list(_jobs(voices.HELD_OUT, ("clean",), seed))}
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        studio = Studio(said, partial / "sounds", hearing.SPEEDS, hearing.takes_of)
        studio.record([*jobs[TRAIN], *jobs[HELD_OUT]], out.name, workers)
        written = {}
        for (part, own), most in zip(jobs.items(), (counts.train, counts.held_out), strict=True):
            lines = list(_lines(pictures / f"{part}.jsonl", own, most, np.random.default_rng(seed)))
            (partial / f"{part}.jsonl").write_text("".join(map(json_line, lines)))
            written[part] = len(lines)
    return written


def _jobs(speakers: Sequence[str], takes: tuple[str, ...], seed: int) -> Iterator[hearing.Job]:
    for v, voice in enumerate(speakers):
        for q, question in enumerate(QUESTIONS):
            own = int(np.random.SeedSequence([seed, 7000, v, q]).generate_state(1)[0] >> 1)
            yield hearing.Job(f"{voice}-{q}", "asked", question, voice, own, takes)


def _lines(manifest: Path, jobs: list[hearing.Job], most: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Of the first `most` pictures that one of the questions is asked about: by any voice, heard in any way."""
    saying = {question: [job for job in jobs if job.text == question] for question in QUESTIONS}
    found = (json.loads(line) for line in manifest.open())
    asked = ((line, line["messages"]) for line in found if line["kind"] in ("name", "colour", "count"))
    fitting = [(line, messages) for line, messages in asked if messages[0]["content"][-1]["text"] in saying]
    for line, (user, assistant) in fitting[:most]:
        picture, question = user["content"]
        of_question = saying[question["text"]]
        job = of_question[rng.integers(len(of_question))]
        sound = f"sounds/{hearing.take_name(job, int(rng.integers(len(job.takes))))}.flac"
        content = [{"type": "image", "image": f"../seeing/{picture['image']}"}, {"type": "audio", "audio": sound}]
        yield {**line, "voice": job.voice, "messages": [{"role": "user", "content": content}, assistant]}
