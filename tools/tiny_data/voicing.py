"""Speech of many voices: what codes and a Talker are learnt from, before omni-tiny's own two voices (see `speaking`).

Kokoro's voices say what they say for `hearing`, whose recordings are used again. flite's, which cost nothing, say as
many sentences and pieces of sentences as a Talker needs to find its place in a text; no speaker is named with them.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools.tiny_data import hearing, sentences, speaking, texts, voices
from tools.tiny_data.examples import HELD_OUT, TRAIN
from tools.tiny_data.speaking import Job
from tools.tiny_data.voices import Voices

SHARES = {"sentence": 0.5, "piece": 0.35, "answer": 0.15}  # of what flite says
PIECE = 4  # words at most


@dataclasses.dataclass(frozen=True)
class Counts:
    """What flite says, enough for every word of the vocabulary; of Kokoro there is what `hearing` has."""

    train: int = 10_500
    held_out: int = 150


def write(out: Path, said: Voices, counts: Counts, heard: hearing.Counts, seed: int,
          workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds and, of Kokoro's voices and of flite's, OUT/{kokoro,flite}_{train,held_out}.jsonl; returns how
    many lines of each. Raises OmniError."""
    kokoro = {TRAIN: hearing.training(heard, seed), HELD_OUT: hearing.held_out(heard, seed)}
    of_kokoro = {part: [Job(job.name, job.kind, job.text, None, job.voice, job.seed) for job in jobs
                        if job.voice in voices.KOKORO] for part, jobs in kokoro.items()}
    of_flite = {part: list(plan(part, count, seed)) for part, count in dataclasses.asdict(counts).items()}
    jobs = {f"{maker}_{part}": own for maker, parts in (("kokoro", of_kokoro), ("flite", of_flite))
            for part, own in parts.items()}
    return speaking.write_jobs(out, said, jobs, hearing.SPEEDS, workers)


def plan(part: str, count: int, seed: int) -> Iterator[Job]:
    """flite's voices in turn; no text of a held-out sentence in training."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 8000, part == HELD_OUT]))
    source = sentences.Sentences(rng)
    for i in range(count):
        kind = str(rng.choice(tuple(SHARES), p=tuple(SHARES.values())))
        if kind == "answer":
            text = speaking.answer(rng)
        else:
            text = source.draw(lambda text: texts.is_held_out(text) == (part == HELD_OUT))
        if kind == "piece":
            text = _piece(text, rng)
        yield Job(f"flite-{part}-{i:05d}", kind, text, None, voices.FLITE[i % len(voices.FLITE)],
                  int(rng.integers(2**31)))


def _piece(text: str, rng: np.random.Generator) -> str:
    """Some neighbouring words of a sentence."""
    words = text[:-1].split()
    first, length = int(rng.integers(len(words))), int(rng.integers(1, PIECE + 1))
    piece = " ".join(words[first:first + length]).rstrip(",")
    return piece[0].upper() + piece[1:] + text[-1]
