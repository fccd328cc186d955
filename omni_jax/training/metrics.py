"""Metrics of replies, as sufficient statistics.

A metric turns an example into a few numbers that may be summed over examples, and the sums into its value. So the same
lines give means, corpus-level rates (summed edits over summed words), BLEU, and a bootstrap of each.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from omni_jax.errors import OmniError
from omni_jax.training import boxes, spoken, texts
from omni_jax.training.boxes import Box
from omni_jax.training.spoken import Spoken

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Answer:
    """What metrics see of an example.

    references: the accepted answers; where a metric compares with one, that which is best for the reply counts.
    choices: of a question with several; the references then are a choice's letter or its text. boxes: wanted ones, in
    pixels of the picture as the model sees it. tolerance: of numbers, relative. loss: (sum of -log p, tokens) of the
    first reference and its end mark, as the reply. choice_losses: sum of -log p of each choice and its end mark.
    speech: the reply as it was spoken. recording: a file of the speaker's voice.
    """

    reply: str = ""
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    tolerance: float = 0.0
    loss: tuple[float, int] = (0.0, 0)
    choice_losses: tuple[float, ...] = ()
    speech: Spoken = dataclasses.field(default_factory=Spoken)
    recording: str = ""


def ratio(sums: np.ndarray) -> float:
    """First over second; nan where nothing was counted."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


@dataclasses.dataclass(frozen=True)
class Metric:
    """statistics: of one example, always equally many; total: the value of their sums. wants: the fields of Answer that
    an example must have. needs: what has to be computed for it: "reply", "loss", "choice_losses" or "speech", for which
    a `listener` may be needed too: "recogniser" or "voice_encoder"."""

    statistics: Callable[[Answer], Sequence[float]]
    total: Callable[[np.ndarray], float] = ratio
    wants: tuple[str, ...] = ("references",)
    needs: str = "reply"
    listener: str = ""


def exact(answer: Answer) -> Sequence[float]:
    """Whether the reply is one of the references, in SQuAD's normal form (Rajpurkar et al. 2016): case, punctuation,
    articles and spaces are passed over. An empty reply is right if a reference is empty too."""
    return any(texts.squad_normal(answer.reply) == texts.squad_normal(r) for r in answer.references), 1


def choice(answer: Answer) -> Sequence[float]:
    """Whether the reply names the right choice, by letter or text: see `texts.chosen`. What names none, or several, is
    wrong."""
    return texts.chosen(answer.reply, answer.choices) == right_choice(answer), 1


def choice_likelihood(answer: Answer) -> Sequence[float]:
    """Whether the right choice is the likeliest reply: by the sum of log p of its text and the end mark, without
    normalising by its length (Brown et al. 2020, section 2.4; `acc` of lm-evaluation-harness). Of equal ones the first
    counts."""
    return int(np.argmin(answer.choice_losses)) == right_choice(answer), 1


def right_choice(answer: Answer) -> int:
    """The index of the right choice. Raises OmniError if the reference is neither a choice's text nor a letter."""
    reference = answer.references[0].strip()
    if reference in answer.choices:
        return answer.choices.index(reference)
    found = texts.chosen(reference, answer.choices)
    if found is None:
        raise OmniError(f"the reference {reference[:60]!r} names none of the choices; write its letter or its text")
    return found


def numeric(answer: Answer) -> Sequence[float]:
    """Whether the last number of the reply is the last of a reference (GSM8K, Cobbe et al. 2021), within `tolerance`
    times the reference (relaxed accuracy is 0.05: ChartQA, Masry et al. 2022). A reply without a number is wrong."""
    said = texts.last_number(answer.reply)
    wanted = [number for r in answer.references if (number := texts.last_number(r)) is not None]
    if not wanted:
        raise OmniError(f"the reference {answer.references[0][:60]!r} holds no number")
    slack = max(answer.tolerance, 1e-9)
    return said is not None and any(abs(said - number) <= slack * abs(number) for number in wanted), 1


def loss(answer: Answer) -> Sequence[float]:
    """-log p of the first reference as the reply, end mark included, summed over its tokens; and how many they are."""
    return answer.loss


def wer(answer: Answer) -> Sequence[float]:
    """Word errors, by jiwer, and words of the reference: the corpus's rate is summed errors over summed words. Both in
    `texts.spoken_normal` form. Of several references that with the lowest rate counts; words in reply to an empty
    reference are errors over no words."""
    return _fewest(texts.word_edits, answer)


def cer(answer: Answer) -> Sequence[float]:
    """As `wer`, of characters; spaces between words are characters."""
    return _fewest(texts.character_edits, answer)


def _fewest(edits: Callable[[str, str], tuple[int, int]], answer: Answer) -> tuple[int, int]:
    reply = texts.spoken_normal(answer.reply)
    counted = [edits(reply, texts.spoken_normal(reference)) for reference in answer.references]
    return min(counted, key=lambda pair: pair[0] / max(pair[1], 1))


def anls(answer: Answer) -> Sequence[float]:
    """Average normalised Levenshtein similarity with threshold 0.5 (Biten et al. 2019; DocVQA), the best of the
    references: see `texts.normalized_similarity`."""
    return max(texts.normalized_similarity(answer.reply, r) for r in answer.references), 1


def token_f1(answer: Answer) -> Sequence[float]:
    """F1 of the words in SQuAD's normal form, as bags, the best of the references (Rajpurkar et al. 2016); where one
    side is empty, 1 if both are (SQuAD 2.0), else 0. The mean over examples."""
    reply = texts.words(answer.reply)
    return max(texts.f1(*texts.overlap(reply, texts.words(r))) for r in answer.references), 1


def label_f1(answer: Answer) -> Sequence[float]:
    """Labels in both, in the reply, in the reference, as sets: see `texts.labels`. The value is the micro-averaged F1,
    2 * both / (found + wanted) of the sums (Tsoumakas and Katakis 2007); two empty sets add nothing, and only empty
    ones give 1. Of several references that with the highest F1 counts."""
    reply = texts.labels(answer.reply)
    return max((texts.overlap(reply, texts.labels(r)) for r in answer.references), key=lambda sums: texts.f1(*sums))


def box_iou(answer: Answer) -> Sequence[float]:
    """Mean intersection over union of boxes, paired one to one as fits best; a box too many or too few counts 0. The
    mean over examples. Boxes: see `boxes.parse_boxes`."""
    pairs = boxes.matched_ious(boxes.parse_boxes(answer.reply), answer.boxes)
    return sum(pairs) / len(pairs), 1


def box_accuracy(answer: Answer) -> Sequence[float]:
    """As `box_iou`, counting pairs whose IoU is 0.5 or more (for one box: accuracy at 0.5, Kazemzadeh et al. 2014)."""
    pairs = boxes.matched_ious(boxes.parse_boxes(answer.reply), answer.boxes)
    return sum(pair >= 0.5 for pair in pairs) / len(pairs), 1


def point_in_box(answer: Answer) -> Sequence[float]:
    """Whether the reply's first point, or the centre of its first box, lies in a wanted box, borders included
    (ScreenSpot: Cheng et al. 2024, section 4). A reply without one is wrong."""
    points = boxes.parse_points(answer.reply)
    return bool(points) and boxes.inside(points[0], answer.boxes), 1


def speech_wer(answer: Answer) -> Sequence[float]:
    """As `wer`, between what the recogniser heard and the reply's text, which is what was to be said."""
    return texts.word_edits(texts.spoken_normal(answer.speech.heard.text), texts.spoken_normal(answer.reply))


def speech_cer(answer: Answer) -> Sequence[float]:
    """As `speech_wer`, of characters."""
    return texts.character_edits(texts.spoken_normal(answer.speech.heard.text), texts.spoken_normal(answer.reply))


def speech_exact(answer: Answer) -> Sequence[float]:
    """Whether the words that the recogniser heard are those of a reference: from what was asked to what was heard."""
    heard = texts.spoken_normal(answer.speech.heard.text)
    return any(heard == texts.spoken_normal(reference) for reference in answer.references), 1


def pause_error(answer: Answer) -> Sequence[float]:
    """Marks of the reply's text without a pause and pauses without a mark, over the marks (1 for a text without any):
    see `spoken.pause_errors`. By the words' times if there is a recogniser that gives them, else by counts."""
    speech = answer.speech
    return spoken.pause_errors(answer.reply, speech.wave, speech.rate, speech.heard.words)


def ended(answer: Answer) -> Sequence[float]:
    """Whether the Talker came to an end by itself, and not at talker_max_new_tokens."""
    return answer.speech.ended, 1


def clipped(answer: Answer) -> Sequence[float]:
    """Share of the samples at full scale."""
    return spoken.clipped(answer.speech.wave)


def speaker_similarity(answer: Answer) -> Sequence[float]:
    """Cosine between the voices of the reply and of the line's recording; the mean over examples. No speech: 0."""
    return answer.speech.similarity, 1


def _perplexity(sums: np.ndarray) -> float:
    return float(np.exp(ratio(sums)))


def _by_sacrebleu(metric: BLEU | CHRF) -> Metric:
    """The corpus's score, 0 to 100, with all references of an example (BLEU: Papineni et al. 2002, Post 2018; chrF2:
    Popovic 2015). Empty replies match nothing."""
    # sacrebleu's own bootstrap rests on these two methods of its metrics; its public ones want the whole corpus.
    statistics = lambda answer: metric._extract_corpus_statistics([answer.reply], [[r] for r in answer.references])[0]
    return Metric(statistics, lambda sums: metric._compute_score_from_stats(sums.astype(int).tolist()).score)


METRICS: dict[str, Metric] = {
    "exact": Metric(exact),
    "choice": Metric(choice, wants=("references", "choices")),
    "choice_likelihood": Metric(choice_likelihood, wants=("references", "choices"), needs="choice_losses"),
    "numeric": Metric(numeric),
    "nll": Metric(loss, needs="loss"),
    "perplexity": Metric(loss, _perplexity, needs="loss"),
    "wer": Metric(wer),
    "cer": Metric(cer),
    "bleu": _by_sacrebleu(BLEU()),
    "bleu_zh": _by_sacrebleu(BLEU(tokenize="zh")),
    "chrf": _by_sacrebleu(CHRF()),
    "anls": Metric(anls),
    "token_f1": Metric(token_f1),
    "label_f1": Metric(label_f1, lambda sums: texts.f1(*sums)),
    "box_iou": Metric(box_iou, wants=("boxes",)),
    "box_accuracy": Metric(box_accuracy, wants=("boxes",)),
    "point_in_box": Metric(point_in_box, wants=("boxes",)),
    "speech_wer": Metric(speech_wer, wants=(), needs="speech", listener="recogniser"),
    "speech_cer": Metric(speech_cer, wants=(), needs="speech", listener="recogniser"),
    "speech_exact": Metric(speech_exact, needs="speech", listener="recogniser"),
    "pause_error": Metric(pause_error, wants=(), needs="speech"),
    "ended": Metric(ended, wants=(), needs="speech"),
    "clipped": Metric(clipped, wants=(), needs="speech"),
    "speaker_similarity": Metric(speaker_similarity, wants=("recording",), needs="speech", listener="voice_encoder"),
}


def summary(name: str, statistics: Sequence[Sequence[float]], seed: int = 0) -> dict[str, Any]:
    """{n, value, low, high}: the metric over examples and its bootstrap 95 % interval (Efron 1979: percentiles of
    RESAMPLES corpora of n examples drawn with replacement)."""
    total, rows = METRICS[name].total, np.asarray(statistics, np.float64)
    n, rng = len(rows), np.random.default_rng(seed)
    drawn = [total(rng.multinomial(n, np.full(n, 1 / n)) @ rows) for _ in range(RESAMPLES)]
    drawn = [value for value in drawn if not math.isnan(value)] or [math.nan]
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return {"n": n, "value": total(rows.sum(0)), "low": low, "high": high}
