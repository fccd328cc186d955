"""Speech to learn to say first: all that omni-tiny answers, as replies to what it reads, hears and sees.

Every answer of one piece is said by both of its voices, for each is a word that must be known; lists, digits and
sentences are drawn, each said by one voice, and held out are those that their text decides. What is replied to is
writing, and in manifests of their own (shown_*) what of OUT/../seeing, watching, hearing or asking has that answer: the
Talker reads the Thinker's vectors of the reply, which hang on what is asked. Another manifest (known_train) has each
of the answers of one piece in one recording alone: who says a thing in one way can learn it by heart.
"""

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np

from omni_jax.errors import require
from omni_jax.training.texts import spoken_normal
from omni_jax.weights.files import whole_directory
from tools._manifests import json_line
from tools.smoke_speech import grammar
from tools.tiny_data import hearing, speaking, texts, voices
from tools.tiny_data.examples import HELD_OUT, NUMBERS, TRAIN, as_sentence, pick
from tools.tiny_data.seeing import COLOURS, EVERY, PLACES, at
from tools.tiny_data.speaking import VOICES, Job
from tools.tiny_data.voices import Studio, Voices

OTHERS = ("I see no picture.", hearing.SILENCE, "Before.", "After.", "Up.", "Down.", "To the left.", "To the right.",
          "It grew.", "It shrank.", "It turned.", "Nothing.", "A beep.", "A sweep.", "A noise.", "Two beeps.",
          "Three beeps.", "Four beeps.", "It moved up.", "It moved down.", "It moved to the left.",
          "It moved to the right.")
SHOWN = ("seeing", "watching", "hearing", "asking")  # parts whose lines are replied to
MOST, OFTEN = 8, 100  # replies with one take at most, and how many askers each of these stands for
KNOWN, KNOWN_OFTEN = (6, 24), 40  # the same of what is to be known by heart, but for the fewest and most, if there are
IN_WRITING = 3  # ways in writing in which that is asked for as well
BEND = 0.03  # by which a take is higher and faster, or lower and slower


@dataclasses.dataclass(frozen=True)
class Counts:
    """Drawn replies of each part, and takes of each recording for training."""

    train: int = 480
    held_out: int = 60
    takes: int = 3


def write(out: Path, said: Voices, counts: Counts, seed: int, workers: int = 2) -> dict[str, int]:
    """Writes OUT/sounds, OUT/{train,held_out}.jsonl, the same with shown_ before it, and OUT/known_train.jsonl; returns
    how many lines of each. OUT/words.jsgf is the grammar of answers of one word, for a recogniser. Raises OmniError."""
    shown = {part: _shown(out.parent, part) for part in (TRAIN, HELD_OUT)}
    jobs = {TRAIN: [*fixed(seed), *drawn(TRAIN, counts.train, seed)],
            HELD_OUT: list(drawn(HELD_OUT, counts.held_out, seed))}
    lines: dict[str, list[dict[str, Any]]] = {}
    with whole_directory(out) as partial:
        (partial / "sounds").mkdir()
        (partial / "words.jsgf").write_text(grammar("words", single_words(), several=False))
        for part, takes in ((TRAIN, counts.takes), (HELD_OUT, 1)):
            Studio(said, partial / "sounds", speaking.SPEEDS, _Takes(takes)).record(jobs[part], out.name, workers)
            for name, find in ((part, _in_writing), (f"shown_{part}", functools.partial(_fitting, shown[part]))):
                lines[name] = [line for job in jobs[part] for line in _lines(job, takes, find)]
        lines["known_train"] = [line for job in fixed(seed) for line in _known(job, _fitting(shown[TRAIN], job.text))]
        for name, own in lines.items():
            (partial / f"{name}.jsonl").write_text("".join(map(json_line, own)))
    return {name: len(own) for name, own in lines.items()}


def answers() -> list[str]:
    """Those of one piece, each once."""
    words = (*(thing.phrase for thing in EVERY), *COLOURS, *NUMBERS, *texts.NUMBERS, *map(at, PLACES))
    return list(dict.fromkeys([*map(as_sentence, words), *texts.questions().values(), *texts.COMMANDS, *OTHERS]))


def single_words() -> list[str]:
    """Of `answers` those of one word, as recognisers write them, sorted."""
    return sorted({word for answer in answers() if " " not in (word := spoken_normal(answer))})


def fixed(seed: int) -> Iterator[Job]:
    """Each of `answers`, by each voice."""
    for a, text in enumerate(answers()):
        for v, (speaker, voice) in enumerate(VOICES.items()):
            own = int(np.random.SeedSequence([seed, 9000, a, v]).generate_state(1)[0] >> 1)
            yield Job(f"fixed-{a:03d}-{speaker}", "answer", text, speaker, voice, own)


def drawn(part: str, count: int, seed: int) -> Iterator[Job]:
    """Lists of things, digits and sentences; no text twice."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 9001, part == HELD_OUT]))
    makers = {"several": lambda: as_sentence(_several(rng)), "digits": lambda: texts.digits(rng),
              "sentence": lambda: texts.sentence(rng)}
    said: set[str] = set()
    while len(said) < count:
        kind = tuple(makers)[len(said) % len(makers)]
        text = makers[kind]()
        if text in said or texts.is_held_out(text) != (part == HELD_OUT):
            continue
        speaker = pick(rng, tuple(VOICES))
        yield Job(f"{part}-{len(said):04d}", kind, text, speaker, VOICES[speaker], int(rng.integers(2**31)))
        said.add(text)


def _several(rng: np.random.Generator) -> str:
    first, second, third = (pick(rng, EVERY).phrase for _ in range(3))
    return f"{first} and {second}" if rng.random() < 0.7 else f"{first}, {second} and {third}"


@dataclasses.dataclass(frozen=True)
class _Takes:
    """(name, samples, rate) of so many takes: the first as it was said, the others bent a little."""

    count: int

    def __call__(self, said: np.ndarray, job: Job, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, int]]:
        for number in range(self.count):
            bend = 1 + (float(rng.uniform(-BEND, BEND)) if number else 0)
            wave = librosa.resample(said, orig_sr=voices.RATE * bend, target_sr=voices.RATE, res_type="soxr_hq")
            yield hearing.take_name(job, number), speaking.cut(wave, rng), voices.RATE


def _shown(data: Path, part: str) -> dict[str, list[Any]]:
    """What the user shows or says, by the answer to it."""
    found: dict[str, list[Any]] = defaultdict(list)
    for name in SHOWN:
        require((data / name).is_dir(), str(data / name), "is not there, and it is replied to; make it first")
        for line in (data / name / f"{part}.jsonl").open():
            asked, told, *_ = json.loads(line)["messages"]  # the first turn alone
            found[told["content"]].append(_elsewhere(asked["content"], name))
    return found


def _elsewhere(content: Any, name: str) -> Any:
    """A user's content of the part `name`, for a manifest beside it."""
    if isinstance(content, str):
        return content
    return [{key: f"../{name}/{value}" if key == item["type"] and key in ("image", "audio", "video") else value
             for key, value in item.items()} for item in content]


def _in_writing(text: str) -> list[str]:
    return [form.format(text) for form in speaking.ASKED]


def _fitting(shown: dict[str, list[Any]], text: str) -> list[Any]:
    return shown.get(text, [])


def _lines(job: Job, takes: int, find: Callable[[str], Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Each take, in reply to some of what `find` gives for the text, if there is anything: to more where there is much,
    for that is answered often."""
    rng, asked = np.random.default_rng([job.seed, 1]), find(job.text)
    replies = min(MOST, 1 + len(asked) // OFTEN)
    for number in range(takes if asked else 0):
        for reply in range(replies):
            line = speaking.line(hearing.take_name(job, number), job, pick(rng, asked))
            yield {**line, "id": f"{line['id']}-{reply}"} if reply else line


def _known(job: Job, asked: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The first take, in reply to writing and to some of what asks for it."""
    rng, (fewest, most), written = np.random.default_rng([job.seed, 2]), KNOWN, _in_writing(job.text)
    some = rng.permutation(len(asked))[:min(fewest + len(asked) // KNOWN_OFTEN, most)]
    writing = rng.permutation(len(written))[:IN_WRITING]
    for number, content in enumerate([*(written[i] for i in writing), *(asked[i] for i in some)]):
        yield {**speaking.line(hearing.take_name(job, 0), job, content), "id": f"{job.name}-known-{number}"}
