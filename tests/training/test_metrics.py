"""Metrics against values computed by hand, and IoU, ANLS, BLEU and chrF against independent computations."""

import itertools
import math

import numpy as np
import pytest
import sacrebleu

from omni_jax import OmniError
from omni_jax.training import boxes, metrics, texts
from omni_jax.training.metrics import METRICS, Answer
from omni_jax.training.spoken import Spoken, Transcript


def value(name, *answers) -> float:
    """The metric over a corpus, by the sums of its statistics."""
    return METRICS[name].total(np.sum([METRICS[name].statistics(answer) for answer in answers], axis=0, dtype=float))


def said(reply, *references, **fields) -> Answer:
    return Answer(reply, references, **fields)


@pytest.mark.parametrize("reply, references, right", [
    ("The Cat!", ["a cat"], 1), ("cats", ["cat"], 0), ("", ["the"], 1), ("", ["cat"], 0), ("two", ["2", "Two."], 1),
    ("  new\n york ", ["New York"], 1)])
def test_exact(reply, references, right):
    assert value("exact", said(reply, *references)) == right


COLOURS = ("red", "dark red", "green", "blue")


@pytest.mark.parametrize("reply, index", [
    ("B", 1), ("(c)", 2), ("d.", 3), ("**B:** because", 1), ("The answer is (C).", 2), ("Answer: **D**", 3),
    ("It is A or rather, the answer is B", 1), ("I would say C", 2), ("Green", 2), ("it is dark red", 1),
    ("I see red", 0), ("A red car", 0), ("A or B", None), ("green or blue", None), ("purple", None), ("", None),
    ("Bread", None), ("E", None)])
def test_choice(reply, index):
    assert texts.chosen(reply, COLOURS) == index
    if index is not None:
        assert value("choice", said(reply, "ABCD"[index], choices=COLOURS)) == 1
        assert value("choice", said(reply, COLOURS[index], choices=COLOURS)) == 1
    assert value("choice", said(reply, COLOURS[0 if index else 1], choices=COLOURS)) == 0


def test_choices_that_are_letters_themselves():
    """A text counts before a letter: the third choice here reads B."""
    choices = ("D", "C", "B", "A")
    assert metrics.right_choice(said("", "B", choices=choices)) == 2 == texts.chosen("B", choices)


def test_choice_by_likelihood():
    right = said("", "green", choices=COLOURS, choice_losses=(4.0, 9.0, 3.5, 7.0))
    wrong = said("", "D", choices=COLOURS, choice_losses=(4.0, 9.0, 3.5, 7.0))
    assert value("choice_likelihood", right, right, wrong) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name, answer", [
    ("choice", said("A", "purple", choices=COLOURS)), ("choice", said("A", "A or B", choices=COLOURS)),
    ("numeric", said("3", "three"))])
def test_references_that_cannot_be_read(name, answer):
    with pytest.raises(OmniError, match="the reference '"):
        METRICS[name].statistics(answer)


@pytest.mark.parametrize("text, number", [
    ("First 3, then 1,234.5 apples.", 1234.5), ("-7", -7), ("3-5", 5), ("\N{MINUS SIGN}2.50 %", -2.5), ("1e-3", 0.001),
    (".5", 0.5), ("#### 42.", 42), ("1,2,3", 3), ("1,2345", 2345), ("none", None), ("$-1,000,000", -1e6), ("x2", 2),
    ("- 5 apples", 5), ("version 1.2.3", 3)])
def test_last_number(text, number):
    assert texts.last_number(text) == number


def test_numeric_tolerance():
    assert value("numeric", said("about 104", "100", tolerance=0.05)) == 1
    assert value("numeric", said("about 106", "100", tolerance=0.05)) == 0
    assert value("numeric", said("it is 0.10", "0.1")) == 1 and value("numeric", said("0.1001", "0.1")) == 0
    assert value("numeric", said("none", "0")) == 0 and value("numeric", said("so 4", "five is 5", "four is 4")) == 1


def test_likelihood_is_weighted_by_tokens():
    answers = [said("", "x", loss=(6.0, 3)), said("", "y", loss=(1.0, 4))]
    assert value("nll", *answers) == 1.0 and value("perplexity", *answers) == pytest.approx(math.e)


def test_word_errors_are_summed_over_the_corpus():
    """Two substitutions and an insertion over four words, one deletion over two; not the mean of the two rates."""
    answers = [said("the cat sat up on", "a cat sat down"), said("Hello", "hello, world!")]
    assert METRICS["wer"].statistics(answers[0]) == (3, 4) and METRICS["wer"].statistics(answers[1]) == (1, 2)
    assert value("wer", *answers) == pytest.approx(4 / 6)
    assert METRICS["wer"].statistics(said("Don\N{RIGHT SINGLE QUOTATION MARK}t “stop”", "don't stop")) == (0, 2)
    numbers = "4, six 0 44 10 300", "four 6 zero forty-four ten three hundred"  # below 100 they are words
    assert METRICS["wer"].statistics(said(*numbers)) == (2, 8)
    assert METRICS["wer"].statistics(said("two words", "")) == (2, 0)
    assert METRICS["wer"].statistics(said("", "two words")) == (2, 2)
    assert METRICS["wer"].statistics(said("colour it", "color it", "colour it")) == (0, 2)
    assert math.isnan(value("wer", said("word", "")))


def test_character_errors():
    assert METRICS["cer"].statistics(said("kitten", "sitting")) == (3, 7)
    assert METRICS["cer"].statistics(said("今天天汽。", "今天天气")) == (1, 4)
    assert METRICS["cer"].statistics(said("a b", "ab")) == (1, 2)


@pytest.mark.parametrize("name, metric", [
    ("bleu", sacrebleu.BLEU()), ("bleu_zh", sacrebleu.BLEU(tokenize="zh")), ("chrf", sacrebleu.CHRF())])
def test_translations_against_sacrebleu(name, metric):
    replies = ["the cat sat on the mat today", "", "他今天去了北京大学"]
    references = [["a cat sat on the mat", "the cat is on the mat today"], ["x y", "z"], ["他今天去北京大学了", "没有"]]
    answers = [said(reply, *own) for reply, own in zip(replies, references, strict=True)]
    expected = metric.corpus_score(replies, [list(column) for column in zip(*references, strict=True)])
    assert value(name, *answers) == pytest.approx(expected.score) and expected.score > 5
    assert value(name, said("one two three four five", "one two three four five")) == pytest.approx(100)


def distance(a: str, b: str) -> int:
    """Levenshtein's, by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_anls():
    rng = np.random.default_rng(0)
    for _ in range(40):
        reply, reference = ("".join(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        share = distance(reply, reference) / max(len(reply), len(reference), 1)
        assert texts.normalized_similarity(reply, reference) == pytest.approx(1 - share if share < 0.5 else 0)
    assert value("anls", said("Acme  Corp", "acme corp", "x")) == 1 and value("anls", said("", "")) == 1
    assert value("anls", said("ab", "ad")) == 0  # half of it is wrong: the threshold itself counts as wrong
    assert value("anls", said("abcd", "abce"), said("zzz", "abc")) == pytest.approx(0.375)


def test_token_f1():
    # In both: cat, sat; 4 and 3 words.
    assert value("token_f1", said("the cat sat down there", "a cat sat up")) == pytest.approx(4 / 7)
    assert value("token_f1", said("dog dog", "dog")) == pytest.approx(2 / 3)  # bags, not sets
    assert value("token_f1", said("", "the"), said("x", "the")) == 0.5
    assert value("token_f1", said("b", "a c", "b")) == 1


def test_label_f1_is_micro_averaged():
    answers = [said("Dog, cat; dog", "cat, bird, fish"), said("", "car"), said("tree", "tree")]
    # In both 1 + 0 + 1, found 2 + 0 + 1, wanted 3 + 1 + 1.
    assert value("label_f1", *answers) == pytest.approx(2 * 2 / (3 + 5))
    assert value("label_f1", said("", "")) == 1


@pytest.mark.parametrize("text, found", [
    ('```json\n[{"bbox_2d": [10, 20, 110.5, 220], "label": "a"},\n {"bbox_2d": [1,2,3,4]',
     [(10, 20, 110.5, 220), (1, 2, 3, 4)]),
    ("<|object_ref_start|>a<|object_ref_end|><|box_start|>(5,6),(7,8)<|box_end|>", [(5, 6, 7, 8)]),
    ("at (30, 40), (10, 20).", [(10, 20, 30, 40)]), ("[0, 1, 2, 3]", [(0, 1, 2, 3)]), ("nowhere [1, 2]", [])])
def test_parsing_of_boxes(text, found):
    assert boxes.parse_boxes(text) == found


@pytest.mark.parametrize("text, found", [
    ('[{"point_2d": [3, 4.5], "label": "x"}]', [(3, 4.5)]), ('<points x1="1" y1="2" alt="a">', [(1, 2)]),
    ("click (7, 8)", [(7, 8)]), ("[7, 8]", [(7, 8)]), ('{"bbox_2d": [0, 0, 10, 4]}', [(5, 2)]), ("there", [])])
def test_parsing_of_points(text, found):
    assert boxes.parse_points(text) == found


def test_iou_by_counting_pixels():
    rng = np.random.default_rng(1)
    overlapping = 0
    for _ in range(50):
        masks, corners = [], []
        for _ in range(2):
            (x1, x2), (y1, y2) = (sorted(rng.choice(13, 2, replace=False).tolist()) for _ in range(2))
            mask = np.zeros((12, 12), bool)
            mask[y1:y2, x1:x2] = True
            masks.append(mask)
            corners.append((x1, y1, x2, y2))
        both = (masks[0] & masks[1]).sum()
        overlapping += both > 0
        assert boxes.iou(*corners) == pytest.approx(both / (masks[0] | masks[1]).sum())
    assert overlapping > 10 and boxes.iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_boxes_are_paired_as_fits_best():
    rng = np.random.default_rng(2)
    draw = lambda n: [boxes.scaled(row, (1, 1)) for row in rng.integers(0, 30, (n, 4)).tolist()]
    for found, wanted in ((draw(3), draw(4)), (draw(4), draw(2)), (draw(3), draw(3))):
        short, long = sorted((found, wanted), key=len)
        best = max(sum(map(boxes.iou, short, order)) for order in itertools.permutations(long, len(short)))
        pairs = boxes.matched_ious(found, wanted)
        assert sum(pairs) == pytest.approx(best) and len(pairs) == len(long)


def test_box_metrics():
    answer = Answer("(0,0),(10,10)", boxes=((0, 0, 10, 5), (50, 50, 60, 60)))
    assert value("box_iou", answer) == 0.25 and value("box_accuracy", answer) == 0.5  # 0.5 is enough
    assert value("box_iou", Answer("nothing", boxes=((0, 0, 1, 1),))) == 0
    inside, border, outside = (Answer(text, boxes=((0, 0, 10, 5),)) for text in ("(3, 4)", "(10, 5)", "(3, 6)"))
    assert value("point_in_box", inside, border, outside, Answer("here", boxes=((0, 0, 1, 1),))) == 0.5


def test_summary_has_an_interval():
    """The interval of a share is close to the binomial's, that of one example is a point."""
    shown = metrics.summary("exact", [(1, 1)] * 60 + [(0, 1)] * 40)
    spread = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert shown["n"] == 100 and shown["value"] == 0.6
    assert [shown["low"], shown["high"]] == pytest.approx([0.6 - spread, 0.6 + spread], abs=0.02)
    assert metrics.summary("wer", [(1, 4)]) == {"n": 1, "value": 0.25, "low": 0.25, "high": 0.25}
    assert metrics.summary("wer", [(1, 4), (3, 8)])["value"] == pytest.approx(1 / 3)


def spoke(heard, wave=(), ended=True, similarity=0.0):
    return Spoken(np.array(wave, np.float32), 1000, Transcript(heard), ended, similarity)


def test_speech_is_compared_with_the_words_of_the_reply():
    """Not with the reference, which the model may have answered otherwise."""
    answers = [said("Three, one.", "four", speech=spoke("three nine")), said("A cat sat", speech=spoke("a cat"))]
    assert value("speech_wer", *answers) == pytest.approx(2 / 5)
    assert METRICS["speech_cer"].statistics(answers[0]) == (2, 9)  # nine, one
    assert METRICS["speech_wer"].statistics(said("two words", speech=spoke(""))) == (2, 2)
    assert METRICS["speech_wer"].statistics(said("")) == (0, 0)


def test_what_is_heard_is_the_right_answer():
    """Whatever was written: the reference counts, in words."""
    answers = [said("Ten.", "Ten.", speech=spoke("10")), said("Ten", "Ten.", speech=spoke("tan")),
               said("Six.", "Ten.", "Four.", speech=spoke("four")), said("Ten.", "Ten.", speech=spoke(""))]
    assert [METRICS["speech_exact"].statistics(answer) for answer in answers] == [(1, 1), (0, 1), (1, 1), (0, 1)]
    assert value("speech_exact", *answers) == 0.5


def test_pauses_ends_clipping_and_voices():
    tone, quiet = [0.5, -0.5] * 150, [0.0] * 200
    paused, straight = spoke("", [*tone, *quiet, *tone], False, 0.25), spoke("", [*tone, 1.0, -1.0, 1.0], True, 0.75)
    texts_of = {"one, two": paused, "one, two, three": straight, "one two": paused}
    answers = [said(text, speech=speech) for text, speech in texts_of.items()]
    assert [METRICS["pause_error"].statistics(answer) for answer in answers] == [(0, 1), (2, 2), (1, 1)]
    assert value("pause_error", *answers) == 3 / 4 and value("ended", *answers) == pytest.approx(1 / 3)
    assert value("clipped", *answers) == 3 / (2 * 800 + 303)
    assert value("speaker_similarity", *answers[:2]) == 0.5
