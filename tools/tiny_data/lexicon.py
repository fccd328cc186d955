"""Every word that omni-tiny may say, said once in each of its voices, and sentences put together from these.

`splicing` takes a word from any recording, so that a Talker can never tell which way of saying it comes next: what it
learns to say is a mixture, which nobody understands. Here a word has one form for ever. That sounds like a speaking
clock, but it leaves nothing to guess: who reads the text knows the codes. `write` records sentences that have all of
the words, with their times; after tools.make_codes this module, run by itself, puts other texts together.

Example:
  D=out/tiny/data/lexicon
  python -m tools.make_codes out/tiny/shipped_model $D/train.jsonl $D/codes_train.jsonl
  python -m tools.tiny_data.lexicon $D/codes_train.jsonl $D/spelt_train.jsonl
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.weights.files import whole_file
from tools._cli import parser, run
from tools._manifests import check_out, json_line
from tools.tiny_data import replying, sentences, splicing, texts
from tools.tiny_data.examples import HELD_OUT, TRAIN, as_sentence, pick
from tools.tiny_data.speaking import VOICES, Job
from tools.tiny_data.voices import Voices

SPEEDS = (1.0, 1.0)
POOL = 12_000  # sentences drawn to choose from
BRING = (5, 4, 3, 2, 1)  # words that a sentence brings first to be chosen, in turn
SENTENCES = 400
LISTED = 5  # words in a row, of those that these sentences leave
FEW = 4  # words of the shortest texts at most
# Shares of the texts: of `sentences`, of what it writes down when it listens, and of a few words in a row.
SHARES = {"sentence": 0.5, "heard": 0.2, "words": 0.3}


def write(out: Path, said: Voices, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds and OUT/train.jsonl, whose lines have the "words" of the reply as those of `splicing`; returns
    how many lines, and how many have words. Raises OmniError."""
    return splicing.write_jobs(out, said, list(plan(seed)), SPEEDS, workers)


def plan(seed: int) -> Iterator[Job]:
    """Texts that have every word, each said by both voices: sentences that bring many new words, then what is left in
    rows."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9700]))
    source = sentences.Sentences(rng)
    pool = [source.draw(splicing.learnt) for _ in range(POOL)]
    chosen: list[str] = []
    known: set[str] = set()
    for least in BRING:
        for text in pool:
            if len(set(bare(text)) - known) >= least:
                chosen.append(text)
                known |= set(bare(text))
    chosen, rows = chosen[:SENTENCES], []
    replies = {word for text in (*_heard(rng), *replying.answers()) for word in bare(text)}
    for words in (sentences.vocabulary(), replies):
        left = sorted(words - {word for text in [*chosen, *rows] for word in bare(text)})
        left = [left[i] for i in rng.permutation(len(left))]
        rows += [f"the {' '.join(left[i:i + LISTED])} today." for i in range(0, len(left), LISTED)]
    for number, text in enumerate([*chosen, *rows]):
        for speaker, voice in VOICES.items():
            yield Job(f"{TRAIN}-{number:03d}-{speaker}", "sentence", text, speaker, voice, number)


def bare(text: str) -> list[str]:
    """Its words without marks, in small letters."""
    return [word.strip(".,?").lower() for word in text.split()]


def _heard(rng: np.random.Generator) -> Iterator[str]:
    """What is written down of what is heard: enough of it to have all of its words."""
    for _ in range(3000):
        yield texts.sentence(rng)
        yield texts.digits(rng)


class Lexicon:
    """The codes of each word in one voice."""

    def __init__(self, lines: Sequence[dict[str, Any]]):
        """`lines`: coded ones of this voice, with words."""
        said, before, after = defaultdict(list), [], []
        for line in lines:
            codes, words = line["messages"][1]["content"][1]["codes"], line["words"]
            at = splicing.bounds(words, len(codes))
            before.append(codes[:at[0]])
            after.append(codes[at[-1]:])
            for number, (word, _, _) in enumerate(words):
                at_end = number in (0, len(words) - 1)  # slower there
                said[bare(word)[0]].append((at_end, codes[at[number]:at[number + 1]]))
        self.before, self.after = _middle(before), _middle(after)
        self.words = {word: _middle([codes for at_end, codes in forms if not at_end] or [codes for _, codes in forms])
                      for word, forms in said.items()}

    def spoken(self, text: str) -> list[int] | None:
        """Codes of a text. None if a word is not in it."""
        words = bare(text)
        if not all(word in self.words for word in words):
            return None
        return [*self.before, *(code for word in words for code in self.words[word]), *self.after]


def _middle(forms: Sequence[list[int]]) -> list[int]:
    """The one of middle length."""
    return sorted(forms, key=len)[len(forms) // 2]


def spelt(lines: Sequence[dict[str, Any]], count: int, seed: int, part: str = TRAIN) -> Iterator[dict[str, Any]]:
    """So many lines of a manifest, half of them in each voice, put together from coded ones with words."""
    of_voices = {speaker: Lexicon([line for line in lines if "words" in line
                                   and line["messages"][1]["content"][1]["speaker"] == speaker]) for speaker in VOICES}
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9701, part == HELD_OUT]))
    source, closed, made = sentences.Sentences(rng), set(replying.answers()), 0
    vocabulary = sorted(set.intersection(*(set(lexicon.words) for lexicon in of_voices.values())))
    while made < count:
        speaker = tuple(VOICES)[made % len(VOICES)]
        text = _text(rng, source, vocabulary)
        codes = of_voices[speaker].spoken(text)
        # What it knows by heart is learnt elsewhere.
        if codes is not None and text not in closed and texts.is_held_out(text) == (part == HELD_OUT):
            job = Job(f"spelt-{made:05d}", "sentence", text, speaker, VOICES[speaker], int(rng.integers(2**31)))
            yield splicing.line_of_codes(job, codes)
            made += 1


def _text(rng: np.random.Generator, source: sentences.Sentences, vocabulary: Sequence[str]) -> str:
    kind = rng.choice(tuple(SHARES), p=tuple(SHARES.values()))
    if kind == "sentence":
        return source.draw()
    if kind == "heard":
        return texts.sentence(rng) if rng.random() < 0.7 else texts.digits(rng)
    return as_sentence(" ".join(pick(rng, vocabulary) for _ in range(rng.integers(1, FEW + 1))))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("coded", type=Path, metavar="IN", help="the recordings with their words, after tools.make_codes")
    made.add_argument("out", type=Path, metavar="OUT", help="the manifest to write")
    made.add_argument("--count", type=int, default=60_000, metavar="N", help="lines to write (60,000)")
    made.add_argument("--held-out", action="store_true", help="texts that are never trained on")
    made.add_argument("--seed", type=int, default=0)
    arguments = made.parse_args(argv)
    check_out(arguments.out, str(arguments.out))
    lines = splicing.read_timed(arguments.coded)
    part = HELD_OUT if arguments.held_out else TRAIN
    with whole_file(arguments.out) as partial, partial.open("w") as file:
        for line in spelt(lines, arguments.count, arguments.seed, part):
            file.write(json_line(line))
    return {"manifest": str(arguments.out), "lines": arguments.count}


if __name__ == "__main__":
    run(main)
