"""Speech put together from words that were recorded: more sentences than anyone can record.

A Talker learns few recordings by heart, for their last codes tell what follows; in ever new sentences of known words it
has to read. `write` records what omni-tiny's two voices say in `speaking` and `replying`, with the times of the words;
after tools.make_codes this module, run by itself, puts other texts together from the codes of one to three neighbouring
words each, as a synthesiser by unit selection does with sound. It also takes such words out by themselves: from these
is learnt how a word sounds, before it can be told where in a sentence it comes.

Example:
  D=out/tiny/data/splicing
  python -m tools.make_codes out/tiny/recode_model $D/train.jsonl $D/codes_train.jsonl
  python -m tools.tiny_data.splicing $D/codes_train.jsonl $D/spliced_train.jsonl
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.errors import require
from omni_jax.training.spoken import speech_bounds
from omni_jax.weights.files import whole_directory, whole_file
from tools._cli import parser, run
from tools._manifests import check_out, json_line
from tools.tiny_data import replying, sentences, speaking, texts, voices
from tools.tiny_data.examples import TRAIN, as_sentence, pick
from tools.tiny_data.speaking import VOICES, Job
from tools.tiny_data.voices import Studio, Timed, Voices

MARGIN = 0.1  # seconds of silence before and after a recording
LONGEST = 3  # neighbouring words of one recording, at most
# Shares of the texts; a piece is a unit, with silence around it.
SHARES = {"sentence": 0.35, "answer": 0.15, "piece": 0.5}
CODES_PER_SECOND = 50


@dataclasses.dataclass(frozen=True)
class Counts:
    """Texts of `speaking` that are recorded, and drawn replies of `replying`."""

    speaking: int = 1740
    replying: int = 480


def write(out: Path, said: Voices, counts: Counts, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds and OUT/train.jsonl, whose lines have the "words" of the reply, [word, start, end] in seconds,
    if these can be told; returns how many lines, and how many have words. Raises OmniError."""
    jobs = [*speaking.plan(TRAIN, counts.speaking, seed), *replying.fixed(seed),
            *replying.drawn(TRAIN, counts.replying, seed)]
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        Studio(said, partial / "sounds", speaking.SPEEDS, _take).record(jobs, out.name, workers)
        lines = [_line(said, job) for job in jobs]
        (partial / f"{TRAIN}.jsonl").write_text("".join(map(json_line, lines)))
    return {TRAIN: len(lines), "timed": sum("words" in line for line in lines)}


def _take(said: np.ndarray, job: Job, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, int]]:
    first, last = speech_bounds(said, voices.RATE)
    yield job.name, voices.levelled(np.pad(said[first:last], round(MARGIN * voices.RATE)), speaking.PEAK), voices.RATE


def _line(said: Voices, job: Job) -> dict[str, Any]:
    line = speaking.in_writing(job)
    wave, words = said.timed(job.text, job.voice, voices.speed_of(job, speaking.SPEEDS))
    first, last = (sample / voices.RATE for sample in speech_bounds(wave, voices.RATE))
    # The silence around the speech counts with its first and last words.
    times = [[word, round(max(start, first) - first + MARGIN, 3), round(min(end, last) - first + MARGIN, 3)]
             for word, start, end in words]
    return {**line, "words": times} if times else line


def bounds(words: Sequence[Timed], codes: int) -> list[int]:
    """The number of each word's first code, and of the one after the last's, in a recording of so many codes."""
    return [*(round(start * CODES_PER_SECOND) for _, start, _ in words),
            min(codes, round(words[-1][2] * CODES_PER_SECOND))]


class Units:
    """What one voice has said, word by word. A unit is some neighbouring words of a recording: (recording, first code,
    code after the last)."""

    def __init__(self):
        self._codes: list[list[int]] = []
        self._units: dict[tuple[str, ...], list[tuple[int, int, int]]] = defaultdict(list)
        self._before: list[tuple[int, int, int]] = []  # silences
        self._after: list[tuple[int, int, int]] = []
        self._pieces: list[tuple[str, tuple[int, int, int]]] = []

    def add(self, words: Sequence[Timed], codes: list[int]) -> None:
        """A recording of these words."""
        number, at = len(self._codes), bounds(words, len(codes))
        self._codes.append(codes)
        self._before.append((number, 0, at[0]))
        self._after.append((number, at[-1], len(codes)))
        marked = [word.lower() for word, _, _ in words]
        for first in range(len(marked)):
            for last in range(first + 1, min(len(marked), first + LONGEST) + 1):
                unit = number, at[first], at[last]
                self._units[tuple(marked[first:last])].append(unit)
                self._pieces.append((" ".join(word for word, _, _ in words[first:last]), unit))
                # A word with another mark, or none, will do where there is no better one.
                self._units["", *_bare(marked[first:last])].append(unit)

    def spoken(self, text: str, rng: np.random.Generator) -> list[int] | None:
        """Codes of a text. Longer units have fewer seams, shorter ones more variety: a unit's length is drawn, the
        longer the likelier. None if a word was never said."""
        words, at, units = text.lower().split(), 0, [pick(rng, self._before)]
        while at < len(words):
            runs = (self._find(words[at:at + n]) for n in range(1, min(LONGEST, len(words) - at) + 1))
            fitting = [run for run in runs if run]
            if not fitting:
                return None
            shares = np.arange(1, len(fitting) + 1)
            n = int(rng.choice(shares, p=shares / shares.sum()))
            units.append(pick(rng, fitting[n - 1]))
            at += n
        return self._joined([*units, pick(rng, self._after)])

    def piece(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """A unit by itself: its words as a sentence, and its codes."""
        words, unit = pick(rng, self._pieces)
        return as_sentence(words.rstrip(",")), self._joined([pick(rng, self._before), unit, pick(rng, self._after)])

    def _joined(self, units: Sequence[tuple[int, int, int]]) -> list[int]:
        return [code for number, first, end in units for code in self._codes[number][first:end]]

    def _find(self, words: Sequence[str]) -> list[tuple[int, int, int]]:
        return self._units.get(tuple(words)) or self._units.get(("", *_bare(words)), [])


def _bare(words: Sequence[str]) -> list[str]:
    """Without the marks that stand after them."""
    return [word.rstrip(",.?") for word in words]


def spliced(lines: Sequence[dict[str, Any]], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """So many lines of a manifest, half of them in each voice, put together from coded ones with words."""
    of_voices = {speaker: Units() for speaker in VOICES}
    for line in lines:
        if "words" in line:
            sound = line["messages"][1]["content"][1]
            of_voices[sound["speaker"]].add(line["words"], sound["codes"])
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9500]))
    source, closed, made = sentences.Sentences(rng), set(replying.answers()), 0
    while made < count:
        speaker = tuple(VOICES)[made % len(VOICES)]
        kind = str(rng.choice(tuple(SHARES), p=tuple(SHARES.values())))
        if kind == "piece":
            text, codes = of_voices[speaker].piece(rng)
        else:
            text = source.draw(learnt) if kind == "sentence" else speaking.answer(rng)
            codes = of_voices[speaker].spoken(text, rng)
        if codes is not None and (kind != "answer" or text in closed or learnt(text)):
            job = Job(f"spliced-{made:05d}", kind, text, speaker, VOICES[speaker], int(rng.integers(2**31)))
            yield line_of_codes(job, codes)
            made += 1


def line_of_codes(job: Job, codes: list[int]) -> dict[str, Any]:
    """Of a manifest: what was never recorded, in reply to writing."""
    line = speaking.in_writing(job)
    line["messages"][1]["content"][1] = {"type": "audio", "speaker": job.speaker, "codes": codes}
    return line


def learnt(text: str) -> bool:
    """Whether it may be trained on."""
    return not texts.is_held_out(text)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("coded", type=Path, metavar="IN", help="the recordings with their words, after tools.make_codes")
    made.add_argument("out", type=Path, metavar="OUT", help="the manifest to write")
    made.add_argument("--count", type=int, default=80_000, metavar="N", help="lines to write (80,000)")
    made.add_argument("--seed", type=int, default=0)
    arguments = made.parse_args(argv)
    check_out(arguments.out, str(arguments.out))
    lines = [json.loads(line) for line in arguments.coded.open()]
    require(any("words" in line for line in lines), str(arguments.coded), "has no line with the times of its words")
    with whole_file(arguments.out) as partial, partial.open("w") as file:
        for line in spliced(lines, arguments.count, arguments.seed):
            file.write(json_line(line))
    return {"manifest": str(arguments.out), "lines": arguments.count}


if __name__ == "__main__":
    run(main)
