"""Every word that omni-tiny may say, said alone in each of its voices, and sentences put together from these.

`splicing` takes a word from any recording, so that a Talker can never tell which way of saying it comes next: what it
learns to say is a mixture, which nobody understands. Here a word has one form for ever, with a short silence after it.
That sounds like a speaking clock, but it leaves nothing to guess: who reads the text knows the codes. `write` records
the words; after tools.make_codes this module, run by itself, puts texts together, and with --sounds their recordings,
from which a DiT learns what such codes sound like.

Example:
  D=out/tiny/data/lexicon
  python -m tools.make_codes out/tiny/shipped_model $D/train.jsonl $D/codes_train.jsonl
  python -m tools.tiny_data.lexicon $D/codes_train.jsonl $D/spelt_train.jsonl
  python -m tools.tiny_data.lexicon $D/codes_train.jsonl $D/drill_train.jsonl --drill --count 30000
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from omni_jax.errors import require
from omni_jax.training.spoken import trimmed
from omni_jax.weights.files import whole_directory, whole_file
from tools._cli import parser, run
from tools._manifests import check_out, json_line
from tools.tiny_data import replying, sentences, texts, voices
from tools.tiny_data.examples import HELD_OUT, TRAIN, as_sentence, pick
from tools.tiny_data.speaking import PEAK, VOICES, Job, write_jobs
from tools.tiny_data.splicing import CODES_PER_SECOND, line_of_codes
from tools.tiny_data.voices import Voices

SPEEDS = (1.0, 1.0)
SAMPLES = voices.RATE // CODES_PER_SECOND  # of a code
AROUND = 4  # codes of silence before and after a recording
BETWEEN = 2  # codes of silence after a word, before the next
MOST = 7  # words in a row, of those texts that are no sentences
SENTENCES = 0.5  # share of the texts that are
DRILLED = 3, 10  # words in a row of a drill


def write(out: Path, said: Voices, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds and OUT/train.jsonl; returns how many lines. Raises OmniError."""
    return write_jobs(out, said, {TRAIN: list(plan())}, SPEEDS, workers, _take)


def plan() -> Iterator[Job]:
    """Every word by both voices."""
    for speaker, voice in VOICES.items():
        for number, word in enumerate(sorted(sentences.vocabulary())):
            yield Job(f"{word}-{speaker}", "word", as_sentence(word), speaker, voice, number)


def _take(said: np.ndarray, job: Job, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, int]]:
    """Of so many whole codes, the silence around it among them."""
    word = trimmed(said, voices.RATE)
    padding = AROUND * SAMPLES, AROUND * SAMPLES + -len(word) % SAMPLES
    yield job.name, voices.levelled(np.pad(word, padding), PEAK), voices.RATE


class Lexicon:
    """The codes of each word in one voice, and the files of its recordings."""

    def __init__(self, lines: Sequence[dict[str, Any]], folder: Path):
        """`lines`: coded ones of this voice; `folder`: of their manifest."""
        turns = [line["messages"][1]["content"] for line in lines]
        self._codes = {bare(text["text"])[0]: sound["codes"] for text, sound in turns}
        self._files = {bare(text["text"])[0]: folder / sound["audio"] for text, sound in turns}

    @property
    def words(self) -> set[str]:
        return set(self._codes)

    def codes(self, text: str) -> list[int]:
        """Of a text of its words."""
        parts = [self._codes[word] for word in bare(text)]
        return [code for part, (begin, end) in zip(parts, _cuts(parts, 1), strict=True) for code in part[begin:end]]

    def sound(self, text: str) -> np.ndarray:
        """The recordings of which these are the codes, joined: float32 [480 * codes] at voices.RATE."""
        parts = [soundfile.read(self._files[word], dtype="float32")[0] for word in bare(text)]
        return np.concatenate([part[begin:end] for part, (begin, end)
                               in zip(parts, _cuts(parts, SAMPLES), strict=True)])


def _cuts(parts: Sequence[Sequence[Any]], size: int) -> Iterator[tuple[int, int]]:
    """What of each recording is taken, a code being so many of its values: the silence around the whole stays."""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        yield 0 if number == 0 else AROUND * size, len(part) - (0 if last else AROUND - BETWEEN) * size


def bare(text: str) -> list[str]:
    """Its words without marks, in small letters."""
    return [word.strip(".,?").lower() for word in text.split()]


def spelt(lexicons: dict[str, Lexicon], count: int, seed: int, part: str = TRAIN) -> Iterator[dict[str, Any]]:
    """So many lines of a manifest, half of them in each voice: sentences, and in training words in any order as well,
    for these bring rare ones as often as others."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9701, part == HELD_OUT]))
    source, known, words = sentences.Sentences(rng), set(replying.answers()), sorted(sentences.vocabulary())
    made = 0
    while made < count:
        speaker = tuple(VOICES)[made % len(VOICES)]
        whole = part == HELD_OUT or rng.random() < SENTENCES
        text = source.draw() if whole else _in_any_order(rng, words, 1, MOST)
        # What it knows by heart is learnt elsewhere.
        if text not in known and texts.is_held_out(text) == (part == HELD_OUT):
            job = Job(f"spelt-{made:05d}", "sentence", text, speaker, VOICES[speaker], int(rng.integers(2**31)))
            yield line_of_codes(job, lexicons[speaker].codes(text))
            made += 1


def drilled(lexicons: dict[str, Lexicon], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """So many lines of a manifest, half of them in each voice: words in any order, each as often as any other, for what
    sentences bring again and again is known long before what they hardly ever bring. The question does not tell them,
    so that few steps are spent on it."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9703]))
    words, made = sorted(sentences.vocabulary()), 0
    while made < count:
        speaker = tuple(VOICES)[made % len(VOICES)]
        text = _in_any_order(rng, words, *DRILLED)
        if not texts.is_held_out(text):
            job = Job(f"drill-{made:05d}", "sentence", text, speaker, VOICES[speaker], made)
            line = line_of_codes(job, lexicons[speaker].codes(text))
            line["messages"][0]["content"] = "What is said?"
            yield line
            made += 1


def _in_any_order(rng: np.random.Generator, words: Sequence[str], fewest: int, most: int) -> str:
    return as_sentence(" ".join(pick(rng, words) for _ in range(rng.integers(fewest, most + 1))))


def with_sounds(lines: Iterator[dict[str, Any]], lexicons: dict[str, Lexicon], folder: Path,
                manifest: Path) -> Iterator[dict[str, Any]]:
    """The lines of a manifest with their recordings, written to `folder`."""
    with whole_directory(folder) as partial:
        for line in lines:
            text, sound = line["messages"][1]["content"]
            name = f"{line['id']}.flac"
            soundfile.write(partial / name, lexicons[sound["speaker"]].sound(text["text"]), voices.RATE)
            sound["audio"] = os.path.relpath(folder / name, manifest.parent)
            yield line


def read(coded: Path) -> dict[str, Lexicon]:
    """The lexicon of each voice from a coded manifest of `write`. Raises OmniError."""
    of_voices: dict[str, list[dict[str, Any]]] = {speaker: [] for speaker in VOICES}
    for line in map(json.loads, coded.open()):
        if line.get("kind") == "word":
            of_voices[line["messages"][1]["content"][1]["speaker"]].append(line)
    lexicons = {speaker: Lexicon(lines, coded.parent) for speaker, lines in of_voices.items()}
    missing = sorted(sentences.vocabulary() - set.intersection(*(lexicon.words for lexicon in lexicons.values())))
    require(not missing, str(coded), f"lacks {len(missing)} words of both voices; make its codes from the part lexicon")
    return lexicons


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("coded", type=Path, metavar="IN", help="the recordings of words, after tools.make_codes")
    made.add_argument("out", type=Path, metavar="OUT", help="the manifest to write")
    made.add_argument("--count", type=int, default=60_000, metavar="N", help="lines to write (60,000)")
    kind = made.add_mutually_exclusive_group()
    kind.add_argument("--held-out", action="store_true", help="sentences that are never trained on")
    kind.add_argument("--drill", action="store_true", help="no sentences: words in any order, each as often")
    made.add_argument("--sounds", type=Path, metavar="DIR", help="write what is said there as well")
    made.add_argument("--seed", type=int, default=0)
    arguments = made.parse_args(argv)
    check_out(arguments.out, str(arguments.out))
    lexicons = read(arguments.coded)
    part = HELD_OUT if arguments.held_out else TRAIN
    lines = (drilled(lexicons, arguments.count, arguments.seed) if arguments.drill
             else spelt(lexicons, arguments.count, arguments.seed, part))
    if arguments.sounds:
        check_out(arguments.sounds, str(arguments.sounds))
        lines = with_sounds(lines, lexicons, arguments.sounds, arguments.out)
    with whole_file(arguments.out) as partial, partial.open("w") as file:
        for line in lines:
            file.write(json_line(line))
    return {"manifest": str(arguments.out), "lines": arguments.count}


if __name__ == "__main__":
    run(main)
