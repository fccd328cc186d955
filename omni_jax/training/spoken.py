"""What can be told of speech by its sound, a transcript of it and the text that it should say."""

import dataclasses
import re
from itertools import pairwise

import jiwer
import numpy as np

from omni_jax.training import texts

FRAME = 0.01  # seconds: of which the energy is taken
SILENT = 35.0  # dB below the clip's loud level, which one frame in twenty exceeds
PAUSE = 0.15  # seconds: the stops of consonants are shorter
FULL_SCALE = 32767 / 32768  # the greatest value of 16 bits
# A mark between words, with the quotes and brackets that close beside it. Commas and points inside numbers are none.
MARK = re.compile(r"[,.;:!?]+[\"'”’)\]]*(?=\s|$)|\s[–-]+(?=\s)|[…—]+|[，。、；：！？]+[”’）」』]*")  # noqa: RUF001
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # scripts that are written without spaces


@dataclasses.dataclass(frozen=True)
class Word:
    """A word that was heard, from `start` to `end` (seconds)."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What was heard. `words`: empty if the recogniser gives no times."""

    text: str = ""
    words: tuple[Word, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Spoken:
    """A spoken reply and what was heard of it. wave: float32 [samples] in [-1, 1] at `rate` Hz. ended: whether the
    Talker came to an end by itself. similarity: of the voice, the cosine with a recording of the speaker."""

    wave: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    rate: int = 24_000
    heard: Transcript = Transcript()
    ended: bool = False
    similarity: float = 0.0


def silent_frames(wave: np.ndarray, rate: int) -> np.ndarray:
    """bool [frames]: those of FRAME seconds whose energy lies more than SILENT dB below the clip's loud level, the 95th
    percentile of its frames' energies. All of a clip without any sound."""
    size = max(1, round(FRAME * rate))
    frames = wave[: len(wave) // size * size].astype(np.float64).reshape(-1, size)
    energy = np.square(frames).mean(1)
    loud = np.percentile(energy, 95) if len(energy) else 0.0
    return (energy < loud * 10 ** (-SILENT / 10)) | (energy == 0)


def speech_bounds(wave: np.ndarray, rate: int) -> tuple[int, int]:
    """The samples where the first frame begins and the last one ends that are not silent; (0, 0) if all are."""
    loud = np.flatnonzero(~silent_frames(wave, rate))
    size = max(1, round(FRAME * rate))
    return (int(loud[0]) * size, (int(loud[-1]) + 1) * size) if loud.size else (0, 0)


def trimmed(wave: np.ndarray, rate: int) -> np.ndarray:
    """Without the silence before and after the speech."""
    first, last = speech_bounds(wave, rate)
    return wave[first:last]


def pauses(wave: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """(start, end) in seconds of the silences inside the speech that last PAUSE or longer; what is silent before and
    after it is no pause."""
    loud = np.flatnonzero(~silent_frames(wave, rate))
    return [((a + 1) * FRAME, b * FRAME) for a, b in pairwise(loud.tolist()) if (b - a - 1) * FRAME >= PAUSE - 1e-9]


def marked_gaps(text: str) -> set[int]:
    """After how many words, in `texts.spoken_normal` form, a mark of punctuation stands; those at the text's ends,
    where no pause can be told from silence, are left out."""
    counts = np.cumsum([len(texts.spoken_normal(part).split()) for part in MARK.split(text)]).tolist()
    return set(counts) - {0, counts[-1]}


def pause_errors(text: str, wave: np.ndarray, rate: int, words: tuple[Word, ...] = ()) -> tuple[int, int]:
    """(errors, marks or 1): marks of the text without a pause and pauses without a mark, over the number of marks.

    With the words' times, each pause lies after so many heard words, and so, by jiwer's alignment, after so many of the
    text's; without them, or in scripts without spaces, only the numbers of marks and pauses are compared.
    """
    marks, found = marked_gaps(text), pauses(wave, rate)
    if not words or UNSPACED.search(text):
        return abs(len(marks) - len(found)), max(len(marks), 1)
    return len(marks ^ _paused_gaps(text, found, words, marks)), max(len(marks), 1)


def _paused_gaps(text: str, found: list[tuple[float, float]], words: tuple[Word, ...], marks: set[int]) -> set[int]:
    """After how many words of the text the pauses lie; where words were not heard, beside a mark if there is one."""
    pieces = [(piece, (word.start + word.end) / 2) for word in words
              for piece in texts.spoken_normal(word.text).split()]
    said = _said_places(texts.spoken_normal(text), [piece for piece, _ in pieces])
    places = [said[sum(middle < (start + end) / 2 for _, middle in pieces)] for start, end in found]
    return {next((gap for gap in place if gap in marks), place[0]) for place in places}


def _said_places(reference: str, heard: list[str]) -> list[range]:
    """For each number of heard words, 0 to all: after how many of the reference's words that is."""
    if not heard or not reference:
        return [range(1)] * (len(heard) + 1)
    places = [range(1)]
    for chunk in jiwer.process_words(reference, " ".join(heard)).alignments[0]:
        first, last = chunk.ref_start_idx, chunk.ref_end_idx
        for i in range(1, chunk.hyp_end_idx - chunk.hyp_start_idx + 1):
            place = min(first + i, last)  # inserted words stand where the last one stood
            places.append(range(place, place + 1))
        if chunk.type == "delete":
            places[-1] = range(places[-1].start, last + 1)
    return places


def clipped(wave: np.ndarray) -> tuple[int, int]:
    """(samples at full scale, samples)."""
    return int((np.abs(wave) >= FULL_SCALE).sum()), wave.size


def word_error_rate(text: str, heard: str) -> float:
    """Word errors over the words of the text (or 1, if it has none), both in `texts.spoken_normal` form."""
    edits, words = texts.word_edits(texts.spoken_normal(heard), texts.spoken_normal(text))
    return edits / max(words, 1)


def reward(text: str, spoken: Spoken, pause_weight: float) -> float:
    """-(word error rate + pause_weight * pause errors over marks): what preference optimization of the Talker ranks
    speech by (Qwen2.5-Omni report, section 4.3; its weights are not published)."""
    errors, marks = pause_errors(text, spoken.wave, spoken.rate, spoken.heard.words)
    return -(word_error_rate(text, spoken.heard.text) + pause_weight * errors / marks)
