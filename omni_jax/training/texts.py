"""What metrics need of texts: their normal forms, numbers, chosen letters, words and edits."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import jiwer

LETTERS = string.ascii_uppercase
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_BELOW_100 = (*DIGITS, *_TEENS, *(f"{ten} {one}".strip() for ten in _TENS for one in ("", *DIGITS[1:])))
_NUMBERS = {str(number): words for number, words in enumerate(_BELOW_100)}
_NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<![\w.])-?\.\d+"


def squad_normal(text: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the; single spaces. Source: the evaluation script
    of SQuAD (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def spoken_normal(text: str) -> str:
    """What is heard of a text: NFKC, lower case, without punctuation but apostrophes inside words; single spaces. A
    whole number below 100 is its English words, for some recognisers write one and some the other."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")  # noqa: RUF001
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    words = "".join(" " if _is_mark(c) else c for c in text).split()
    return " ".join(_NUMBERS.get(word, word) for word in words)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" and character != "'"


def last_number(text: str) -> float | None:
    """The last number of a text: `1,234.5`, `-3`, `.5`, `2e-3`; units and signs of percent are passed over, a minus
    between two numbers is no sign."""
    text = re.sub(r"(?<=\w)(?<!\d[eE])[-–]", " ", text.replace("−", "-"))  # noqa: RUF001
    found = re.findall(_NUMBER, text)
    return float(found[-1].replace(",", "")) if found else None


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """Which of the choices a reply names, or None if it names none or several.

    In this order: it is a letter or begins with one that a mark sets off (`B`, `(B)`, `B.`, `**B:**`); it says `answer
    is B`, the last time counts; one letter alone stands by itself in it, as a capital; it holds the text of one choice
    alone (a choice that is part of another one found does not count). As the heuristic of MMBench (Liu et al. 2023,
    section 4.2), but without a second model, and no guess for what cannot be told.
    """
    letters, text = LETTERS[: len(choices)], text.strip()
    if exact := [i for i, choice in enumerate(choices) if squad_normal(choice) == squad_normal(text) != ""]:
        return exact[0]
    if begun := re.match(rf"[(\[*\s]*([{letters}{letters.lower()}])(?:[*\s]*[.):,\]\n]|\**\s*$)", text):
        return letters.index(begun[1].upper())
    if said := re.findall(rf"(?i:answer(?:\s+is)?)\s*:?[(\[*\s]*([{letters}])(?![\w'])", text):
        return letters.index(said[-1])
    alone = set(re.findall(rf"(?<![\w'])([{letters}])(?![\w'])", text)) - _articles(text)
    if len(alone) == 1:
        return letters.index(alone.pop())
    return None if alone else _named(text, choices)


def _articles(text: str) -> set[str]:
    """The capitals that are words: A before the first word of a sentence, I before a verb."""
    article = re.findall(r"(?:^|[.!?]\s+)(A) (?!or\b|and\b)(?=[a-z])", text)
    return {*article, *re.findall(r"\b(I)(?=['’ ][a-z])", text)}  # noqa: RUF001


def _named(text: str, choices: Sequence[str]) -> int | None:
    said = f" {squad_normal(text)} "
    found = [i for i, choice in enumerate(choices) if (own := squad_normal(choice)) and f" {own} " in said]
    whole = [i for i in found
             if not any(i != j and squad_normal(choices[i]) in squad_normal(choices[j]) for j in found)]
    return whole[0] if len(whole) == 1 else None


def words(text: str) -> list[str]:
    """The words of SQuAD's normal form."""
    return squad_normal(text).split()


def labels(text: str) -> list[str]:
    """The different labels of a text, in their normal form: parts between commas, semicolons and line ends."""
    parts = (squad_normal(part) for part in re.split(r"[,;\n，；、]", text))  # noqa: RUF001
    return list(dict.fromkeys(part for part in parts if part))


def overlap(found: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
    """(in both, found, wanted) of two bags."""
    return sum((Counter(found) & Counter(wanted)).values()), len(found), len(wanted)


def f1(both: float, found: float, wanted: float) -> float:
    """2 both / (found + wanted); 1 if nothing was wanted and nothing found."""
    return 2 * both / (found + wanted) if found + wanted else 1.0


def word_edits(reply: str, reference: str) -> tuple[int, int]:
    """(substitutions + insertions + deletions, words of the reference), by jiwer."""
    return _edits(jiwer.process_words, reply, reference)


def character_edits(reply: str, reference: str) -> tuple[int, int]:
    """(edits, characters of the reference, spaces included), by jiwer, which strips the ends."""
    return _edits(jiwer.process_characters, reply, reference)


def _edits(align: Callable, reply: str, reference: str) -> tuple[int, int]:
    found = align(reference, reply)
    return (found.substitutions + found.insertions + found.deletions,
            found.hits + found.substitutions + found.deletions)


def normalized_similarity(reply: str, reference: str, threshold: float = 0.5) -> float:
    """1 - edits / length of the longer, 0 where edits / length reaches the threshold; case and doubled spaces are
    passed over. Two empty texts have 1. Source: ANLS, Biten et al. 2019, equation 1 (threshold 0.5)."""
    reply, reference = (" ".join(text.lower().split()) for text in (reply, reference))
    longer = max(len(reply), len(reference))
    distance = character_edits(reply, reference)[0] / longer if longer else 0.0
    return 1 - distance if distance < threshold else 0.0
