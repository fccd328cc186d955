"""Sentences of five to ten words that omni-tiny learns to say, from templates over the lists of `words`.

They are grammatical and mean little, so that no word can be guessed from its neighbours.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from tools.tiny_data import words

FORMS = (
    "the {kind} {person} {acted} the {thing} {when}.",
    "the {person} {acted} a {kind} {thing} {where} the {place}.",
    "{who} {often} {act} {own} {thing} {where} the {place}.",
    "{own} {person} will {act} the {thing} {when}.",
    "{own} {kind} {animal} {moved} {where} the {place}.",
    "did the {person} {act} the {thing} {how}?",
    "why does the {animal} {move} so {how}?",
    "where did you {act} {own} {kind} {thing}?",
    "can {who} {move} {where} the {kind} {place}?",
    "please {act} the {kind} {thing} {how}.",
    "please do not {act} the {thing} or the {thing}.",
    "there are {number} {animals} {where} the {place}.",
    "{number} {kind} {animals} {moved} {where} the {thing}.",
    "the {person} and the {person} {moved} {how}.",
    "the {person} {often} {moves} {where} the {place}.",
    "he {often} {acts} this {kind} {thing}.",
    "she {acts} that {thing} {how} {when}.",
    "the {thing} was {kind}, but the {thing} was {kind}.",
    "this {thing} is more {kind} than that {thing}.",
    "the {person} {acts} the {kind} {thing}.",
    "nobody {acts} a {thing} {where} the {place}.",
    "everybody {acted} {own} {thing} {how}.",
    "the {kind} {person} {acted} it {how}.",
    "{matter} and {matter} are {kind}.",
    "we talked about {matter} and {matter} {when}.",
    "I think that {matter} is very {kind}.",
    "without {matter} there would be no {matter}.",
    "nobody {moved} {where} the {place} {when}.",
    "if you {act} the {thing}, the {animal} will {move}.",
    "when the {person} {moved}, the {animal} {moved}.",
    "{when} the {animal} {moved} {where} the {thing}.",
    "the {place} {where} the {place} is {kind}.",
)
SHORTEST, LONGEST = 5, 10  # words
MANY = {"calf": "calves", "deer": "deer", "fish": "fish", "fly": "flies", "fox": "foxes", "goose": "geese",
        "mouse": "mice", "octopus": "octopuses", "puppy": "puppies", "pony": "ponies",
        "sheep": "sheep", "wolf": "wolves", "butterfly": "butterflies"}


class Deck:
    """Values in random order, each once before any comes again, so that rare words are not left to chance."""

    def __init__(self, values: Sequence[str], rng: np.random.Generator):
        self._values, self._rng, self._left = list(values), rng, []

    def draw(self) -> str:
        if not self._left:
            self._left = [self._values[i] for i in self._rng.permutation(len(self._values))]
        return self._left.pop()

    def put_back(self, value: str) -> None:
        """Under the others: it has not been used."""
        self._left.insert(0, value)


class Sentences:
    """An endless source of them. outside: each has a word from outside the vocabulary, where its template has room."""

    def __init__(self, rng: np.random.Generator, outside: bool = False):
        self._forms = Deck(FORMS, rng)
        self._decks = {slot: Deck(values, rng) for slot, values in slots(outside).items()}

    def draw(self, wanted: Callable[[str], bool] = lambda text: True) -> str:
        """The next that is `wanted`."""
        while True:
            form = self._forms.draw()
            drawn = [(slot, self._decks[slot].draw()) for slot in re.findall(r"\{(\w+)\}", form)]
            values = iter(value for _, value in drawn)
            text = written(re.sub(r"\{\w+\}", lambda _, values=values: next(values), form))
            if SHORTEST <= len(text.split()) <= LONGEST and wanted(text):
                return text
            for slot, value in drawn:
                self._decks[slot].put_back(value)


def written(text: str) -> str:
    """With its first letter large, and "an" where it is said."""
    text = re.sub(r"\ba (?=[aeiou](?!n[ia]|se|su))", "an ", text)
    text = re.sub(r"\ba (?=ho(?:nest|ur))", "an ", text)
    return text[0].upper() + text[1:]


def vocabulary() -> set[str]:
    """All words that its sentences have, in small letters."""
    fixed = re.sub(r"\{\w+\}", " ", " ".join(FORMS))
    lists = [*slots().values(), (fixed, "an")]
    return {word.lower() for values in lists for value in values for word in re.findall(r"[A-Za-z]+", value)}


def slots(outside: bool = False) -> dict[str, list[str]]:
    """The values of each slot of the templates."""
    def of(name: str) -> str:
        return words.OUTSIDE.get(name, getattr(words, name)) if outside else getattr(words, name)

    names = {"person": "PEOPLE", "animal": "ANIMALS", "thing": "THINGS", "place": "PLACES", "matter": "MATTERS",
             "kind": "KINDS", "how": "HOW", "often": "OFTEN", "where": "WHERE", "number": "NUMBERS", "own": "OWN",
             "who": "WHO"}
    found = {slot: of(name).split() for slot, name in names.items()}
    for forms, name in ((("act", "acted", "acts"), "ACTS"), (("move", "moved", "moves"), "MOVES")):
        found |= dict(zip(forms, map(list, zip(*verbs(of(name)), strict=True)), strict=True))
    return found | {"when": [each.strip() for each in of("WHEN").split(",")],
                    "animals": [MANY.get(animal, f"{animal}s") for animal in found["animal"]]}


def verbs(text: str) -> list[tuple[str, str, str]]:
    """(base, past, third person) of a list of `words`."""
    forms = [entry.split() for entry in text.split(",")]
    return [(base, past, third[0] if third else third_person(base)) for base, past, *third in forms]


def third_person(base: str) -> str:
    if base.endswith(("s", "x", "z", "ch", "sh", "o")):
        return f"{base}es"
    return f"{base[:-1]}ies" if re.search(r"[^aeiou]y$", base) else f"{base}s"
