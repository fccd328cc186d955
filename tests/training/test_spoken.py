"""Pauses, clipping and the reward, of sounds made so that the answer is known."""

import numpy as np
import pytest

from omni_jax.training import spoken
from omni_jax.training.spoken import Spoken, Transcript, Word
from omni_jax.training.texts import spoken_normal

RATE = 24_000


def tones(*seconds: float, noise: float = 0.0) -> np.ndarray:
    """Tone, silence, tone, … of these lengths, of unequal loudness."""
    pieces = []
    for i, length in enumerate(seconds):
        t = np.arange(round(length * RATE)) / RATE
        pieces.append((0 if i % 2 else 0.5 / (1 + i)) * np.sin(2 * np.pi * 300 * t))
    wave = np.concatenate(pieces)
    return (wave + noise * np.random.default_rng(0).standard_normal(wave.size)).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_pauses_lie_inside_the_speech_and_are_long_enough(noise):
    quiet = np.zeros(RATE // 2, np.float32)
    wave = np.concatenate([quiet, tones(0.4, 0.25, 0.3, 0.1, 0.2, 0.5, 0.4, noise=noise), quiet])
    assert spoken.pauses(wave, RATE) == [(pytest.approx(0.9), pytest.approx(1.15)),
                                         (pytest.approx(1.75), pytest.approx(2.25))]
    assert spoken.speech_bounds(wave, RATE) == (RATE // 2, len(wave) - RATE // 2)
    assert spoken.pauses(tones(0.3, spoken.PAUSE - 0.02, 0.3), RATE) == []
    assert len(spoken.pauses(tones(0.3, spoken.PAUSE, 0.3), RATE)) == 1
    for silence in (quiet, quiet[:3], quiet[:0]):
        assert spoken.pauses(silence, RATE) == [] and spoken.speech_bounds(silence, RATE) == (0, 0)


@pytest.mark.parametrize("text, gaps", [
    ("three, one four.", {1}), ("one two three", set()), ("Well… yes, no; maybe: so!", {1, 2, 3, 4}), ("", set()),
    (".", set()), ("yes—no", {1}),
    ("it cost 1,000.50 or so, he said", {7}), ('"Stop," he said. Then left', {1, 3}), ("one - two", {1}),
    ("well-known, e.g. here", {2, 4}), (", one, , two", {1}), ("你好，世界。再见", {1, 2}), ("don't, mind", {1})])  # noqa: RUF001
def test_marks_between_words(text, gaps):
    assert spoken.marked_gaps(text) == gaps
    assert all(0 < gap < len(spoken_normal(text).split()) for gap in gaps)


def heard(text: str, *times: tuple[float, float]) -> tuple[Word, ...]:
    return tuple(Word(word, *time) for word, time in zip(text.split(), times, strict=True))


PAUSED_ONCE = tones(0.5, 0.3, 1.0)  # after half a second
THREE = ((0.0, 0.5), (0.8, 1.3), (1.3, 1.8))


@pytest.mark.parametrize("text, words, errors", [
    ("three, one four.", "three one four", (0, 1)), ("three one, four", "three one four", (2, 1)),
    ("three one four", "three one four", (1, 1)), ("three, one, four", "three one four", (1, 2)),
    ("three, one four", "tree one four", (0, 1)),  # misheard
    ("three five, one four", "three one four", (0, 1)),  # not heard: the pause may stand on either side of it
    ("three five one four", "three one four", (1, 1)),
    ("nine three, one four", "three one four", (0, 1)), ("one, four", "three one four", (2, 1)),
])
def test_pause_errors_by_the_times_of_words(text, words, errors):
    assert spoken.pause_errors(text, PAUSED_ONCE, RATE, heard(words, *THREE)) == errors


def test_pause_errors_by_counts():
    count = lambda text, words=(): spoken.pause_errors(text, PAUSED_ONCE, RATE, words)
    assert count("three one, four") == (0, 1) and count("a, b, c, d") == (2, 3) and count("a b") == (1, 1)
    assert count("你好世界，再见", heard("你好 世界 再见", *THREE)) == (0, 1)  # noqa: RUF001
    assert spoken.pause_errors("a, b", np.zeros(0, np.float32), RATE) == (1, 1)


def test_words_that_are_no_words_are_passed_over():
    words = heard("three - one four", (0.0, 0.5), (0.55, 0.7), (0.8, 1.3), (1.3, 1.8))
    assert spoken.pause_errors("three, one four", PAUSED_ONCE, RATE, words) == (0, 1)
    assert spoken.pause_errors("?", PAUSED_ONCE, RATE, words) == (1, 1)
    assert spoken.pause_errors("three, four", PAUSED_ONCE, RATE, heard("-", (0.0, 0.5))) == (2, 1)


def test_clipping():
    wave = np.array([0.0, 1.0, -1.0, 0.99996, 0.99998, -0.5], np.float32)
    assert spoken.clipped(wave) == (3, 6) and spoken.clipped(wave[:0]) == (0, 0)


def test_reward():
    said = Spoken(PAUSED_ONCE, RATE, Transcript("three nine four", heard("three nine four", *THREE)))
    assert spoken.reward("Three, one four.", said, 0.5) == pytest.approx(-1 / 3)
    assert spoken.reward("three one, four", said, 0.5) == pytest.approx(-(1 / 3 + 0.5 * 2))
    assert spoken.reward("three one, four", said, 0.0) == pytest.approx(-1 / 3)
    assert spoken.reward("", said, 0.0) == -3 and spoken.word_error_rate("", "") == 0
