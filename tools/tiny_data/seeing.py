"""Pictures of things and what can be asked of them: names, colours, numbers, places.

Each training picture is in one of two styles of drawing, in some other size, place, light and colour. Held out are a
third style, of which names are asked, and one in five combinations of a thing and what else is asked of it. `looking`
asks more of each picture, in several turns, and has more pictures to count and to find places in; `scanning` has four
things in each; in `restyling` most drawings are as other styles might have them.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from omni_jax.weights.files import whole_directory
from tools.tiny_data.canvas import CELLS, FRAME, Sketch, background, compose, covered, photograph, scatter
from tools.tiny_data.drawings import (
    COLOURS,
    STYLES,
    UNSEEN,
    Drawings,
    bend,
    colour_of,
    flat,
    grey,
    jitter,
    nearest,
    place,
    recolour,
    restyle,
    upright,
)
from tools.tiny_data.examples import (
    HELD_OUT,
    NUMBERS,
    TRAIN,
    Record,
    choose,
    conversation,
    is_held_out,
    pick,
    turn,
    write_all,
)
from tools.tiny_data.things import THINGS, Thing

EVERY = tuple(THINGS.values())
COUNTED = tuple(thing for thing in EVERY if thing.form == "one")
# Centres, in frames: (x, y).
PLACES = {"left": (0.2, 0.5), "right": (0.8, 0.5), "top": (0.5, 0.2), "bottom": (0.5, 0.8), "middle": (0.5, 0.5)}
# A pair's places, and how the first is said to lie to the second.
PAIRS = {("left", "right"): ("left of", "right of"), ("top", "bottom"): ("above", "below")}
SHARES = {  # of the kinds in each part
    TRAIN: {"name": 0.6, "colour": 0.08, "count": 0.1, "position": 0.1, "several": 0.08, "nothing": 0.04},
    HELD_OUT: {"name": 0.4, "colour": 0.12, "count": 0.14, "position": 0.14, "several": 0.14, "nothing": 0.06},
}
LOOKING = {  # of the kinds in training
    TRAIN: {"name": 0.12, "colour": 0.1, "count": 0.34, "position": 0.26, "several": 0.16, "nothing": 0.02}}
SCANNING = {TRAIN: {"four": 1.0}}
RESTYLING = {TRAIN: {"name": 0.35, "count": 0.1, "four": 0.55}}
QUARTERS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # centres, in frames: (x, y)
COVERED = 0.15  # share of a cell from which a thing lies in it
NAME = ("What is it?", "What is this?", "What do you see?", "What is in the picture?")
COLOUR = ("What colour is it?", "Which colour is it?", "What colour {verb} the {name}?")
COUNT = ("How many are there?", "How many do you see?", "How many {plural} are there?", "How many {plural} do you see?")
PLACE = ("Where {verb} the {name}?", "Where do you see the {name}?", "In which part of the picture {verb} the {name}?")
BESIDE = ("What is {relation} the {name}?", "What do you see {relation} the {name}?")
AT_SIDE = ("What is {place}?", "What do you see {place}?")
SEVERAL = ("What do you see?", "What is in the picture?", "Name what you see from left to right.",
           "What things are there?")
ASKED_BLIND = (*NAME[2:], COLOUR[2], *COUNT[2:], *PLACE, "What colour {verb} the {name} in the picture?",
               "Is there a picture of {phrase}?")


def write(out: Path, drawings: Drawings, train: int, held_out: int, seed: int = 0, workers: int = 2) -> Record:
    """OUT/train.jsonl and OUT/held_out.jsonl with OUT/pictures, captions_*.jsonl, in which the same pictures are
    described, and cells_*.jsonl, which tell what lies in each of their cells; returns counts by kind, bytes, seconds
    and the baseline `nearest`, by colours and by grey pixels. The same seed writes the same files, with any number of
    workers."""
    told = write_all(Path(out), Seeing(drawings, SHARES), "pictures", {TRAIN: train, HELD_OUT: held_out}, seed, workers)
    return {**told, "nearest": round(nearest(drawings), 4), "nearest_grey": round(nearest(drawings, coloured=False), 4)}


def looking(out: Path, drawings: Drawings, train: int, seed: int = 0, workers: int = 2) -> Record:
    """OUT/train.jsonl and the others of training with OUT/pictures, other ones than `write` makes of that seed, each
    asked about in several turns if it can be; returns counts by kind, bytes and seconds."""
    made = Seeing(drawings, LOOKING, asked=4)
    return write_all(Path(out), made, "pictures", {TRAIN: train}, seed + 1, workers)


def scanning(out: Path, drawings: Drawings, train: int, seed: int = 0, workers: int = 2) -> Record:
    """As `looking`, pictures of four things; nothing is asked about them."""
    return write_all(Path(out), Seeing(drawings, SCANNING), "pictures", {TRAIN: train}, seed + 2, workers)


def restyling(out: Path, drawings: Drawings, train: int, seed: int = 0, workers: int = 2) -> Record:
    """As `looking`, pictures of one, several and four things that look little like the two styles they are drawn in."""
    made = Seeing(drawings, RESTYLING, restyled=0.8)
    return write_all(Path(out), made, "pictures", {TRAIN: train}, seed + 3, workers)


def plain(out: Path, drawings: Drawings) -> Record:
    """OUT/held_out.jsonl: every drawing of the unseen style, to be named, as `nearest` is asked about it; and
    OUT/train.jsonl: those of the trained styles; with OUT/pictures."""
    with whole_directory(Path(out)) as folder:
        (folder / "pictures").mkdir()
        for part, styles in ((HELD_OUT, (UNSEEN,)), (TRAIN, STYLES)):
            lines = []
            for style, thing, icon, page in upright(drawings, styles, FRAME):
                path = f"pictures/{style}-{icon}.png"
                page.save(folder / path)
                shown = [{"type": "image", "image": path}]
                lines.append(json.dumps(conversation(f"{style}-{icon}", "name", style, shown, NAME[0], thing.phrase)))
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    return {"directory": str(out)}


@dataclasses.dataclass(frozen=True)
class Seeing:
    """Makes one example: its picture in `folder`, and its lines of the manifests. shares: of the kinds in each part.
    asked: questions about a picture at most. restyled: how often a drawing of training is as another style might have
    it."""

    drawings: Drawings
    shares: dict[str, dict[str, float]]
    asked: int = 1
    restyled: float = 0.0

    def __call__(self, rng: np.random.Generator, part: str, name: str, folder: Path) -> dict[str, Record]:
        kinds, shares = zip(*self.shares[part].items(), strict=True)
        kind = kinds[rng.choice(len(kinds), p=shares)]
        style = self._style(rng, part, kind)
        page, drawn, question, answer, caption, more = MAKERS[kind](
            Hand(rng, self.drawings, part, style, self.restyled))
        if page is None:
            return {"": conversation(name, kind, None, [], question, answer)}
        path = f"pictures/{name}.jpg"
        photograph(rng, compose(page, [each.sketch for each in drawn]), folder / path)
        shown = [{"type": "image", "image": path}]
        described = conversation(name, kind, style, shown, "", caption)
        by_cells = [described["messages"][0], {"role": "assistant", "content": cells(drawn)}]  # no sentence
        told = {"captions": described, "cells": {**described, "messages": by_cells}}
        if question is None:
            return told
        line = conversation(name, kind, style, shown, question, answer)
        more = [other for other in (*more, *colours(drawn)) if question not in other.phrasings]
        for i in rng.permutation(len(more))[: self.asked - 1]:
            line["messages"] += turn([], pick(rng, more[i].phrasings), more[i].answer)
        return {"": line, **told}

    @staticmethod
    def _style(rng: np.random.Generator, part: str, kind: str) -> str:
        """Held-out names are all in the unseen style, a third of the other kinds is."""
        unseen = part == HELD_OUT and (kind == "name" or rng.random() < 1 / 3)
        return UNSEEN if unseen else pick(rng, STYLES)


class Asked(NamedTuple):
    phrasings: tuple[str, ...]
    answer: str


class Drawn(NamedTuple):
    """A thing in a picture, with its colour and its place, if they are to be told."""

    thing: Thing
    sketch: Sketch
    colour: str | None = None
    place: str | None = None


class Shown(NamedTuple):
    """page: what the drawn stand on, or None without a picture. question: None if nothing is asked. caption: all
    that is asked of pictures of its kind, in words. more: what else can be asked of this one."""

    page: Image.Image | None
    drawn: tuple[Drawn, ...]
    question: str | None
    answer: str
    caption: str
    more: tuple[Asked, ...] = ()


@dataclasses.dataclass(frozen=True)
class Hand:
    """What draws one picture: in one style, for one part."""

    rng: np.random.Generator
    drawings: Drawings
    part: str
    style: str
    restyled: float = 0.0  # chance of a drawing in training

    def choose(self, what: str, *axes) -> tuple:
        return choose(self.rng, self.part, what, *axes)

    def say(self, phrasings: tuple[str, ...], thing: Thing | None = None, **words: str) -> str:
        return pick(self.rng, said_of(phrasings, thing, **words))

    def sketch(self, thing: Thing, size: tuple[float, float], turn: float = 15.0, colours: bool = True) -> Image.Image:
        """RGBA: the thing with its longer side between `size` (in frames), turned by up to `turn` degrees."""
        image = self.drawings.any_of(thing, self.style, self.rng)
        if colours:
            image = self.vary(image)
        return place(image, FRAME * self.rng.uniform(*size), self.rng.uniform(-turn, turn), self.rng.random() < 0.5)

    def vary(self, image: Image.Image) -> Image.Image:
        """In other colours; in training bent as well, and at times so that the shape alone tells what it is."""
        if self.part == HELD_OUT:
            return jitter(image, self.rng)
        if self.restyled and self.rng.random() < self.restyled:
            return restyle(image, self.rng)
        image = bend(image, self.rng) if self.rng.random() < 0.4 else image
        image = flat(image, self.rng) if self.rng.random() < 0.15 else image
        chance = self.rng.random()
        if chance < 0.08:
            return grey(image)
        if chance < 0.18:
            return recolour(image, pick(self.rng, tuple(COLOURS)))
        return jitter(image, self.rng, 0.5 if chance < 0.3 else 0.06)

    def page(self, images: list[Image.Image]) -> Image.Image:
        return background(self.rng, images)

    def natural(self, thing: Thing, image: Image.Image) -> str | None:
        """The colour that a drawing has as it stands, if it has a single one that is of this part."""
        colour = colour_of(image)
        return colour if colour and is_held_out("colour", thing, colour) == (self.part == HELD_OUT) else None


def name(hand: Hand) -> Shown:
    """One thing, large or smaller, anywhere; in training at any angle now and then."""
    thing = pick(hand.rng, EVERY)
    turn = 180.0 if hand.part == TRAIN and hand.rng.random() < 0.1 else 25.0
    image = hand.sketch(thing, (0.45, 1.0), turn)
    page = hand.page([image])
    drawn = (Drawn(thing, (image, tuple(hand.rng.random(2))), hand.natural(thing, image)),)
    return Shown(page, drawn, hand.say(NAME), thing.phrase, thing.phrase)


def colour(hand: Hand) -> Shown:
    """One thing in a colour; or two in two colours, and the question tells which is meant."""
    thing, named = hand.choose("colour", EVERY, tuple(COLOURS))
    image = recolour(hand.sketch(thing, (0.35, 0.9), colours=False), named)
    if hand.rng.random() < 0.7:
        page = hand.page([image])
        drawn = (Drawn(thing, (image, tuple(hand.rng.random(2))), named),)
        return Shown(page, drawn, hand.say(COLOUR, thing), named, f"{named} {thing.name}", (Asked(NAME, thing.phrase),))
    while True:
        other, second = hand.choose("colour", EVERY, tuple(COLOURS))
        if other != thing and second != named:
            break
    images = [image, recolour(hand.sketch(other, (0.35, 0.45), colours=False), second)]
    images[0].thumbnail((0.45 * FRAME, 0.45 * FRAME))
    page, pairs = hand.page(images), ((thing, named), (other, second))
    drawn = tuple(Drawn(one, sketch, its) for (one, its), sketch in zip(pairs, _row(hand, images), strict=True))
    return Shown(page, drawn, hand.say(COLOUR[2:], thing), named, f"{named} {thing.name} and {second} {other.name}")


def count(hand: Hand) -> Shown:
    """One to six of the same, apart from one another. Their size tells little of their number."""
    thing, number = hand.choose("count", COUNTED, range(1, 7))
    drawing = hand.vary(hand.drawings.any_of(thing, hand.style, hand.rng))
    size, placed = FRAME * hand.rng.uniform(0.2, min(0.5, 0.78 / number**0.5)), None
    while placed is None:
        images = [place(drawing, size * hand.rng.uniform(0.9, 1.1), hand.rng.uniform(-20, 20), hand.rng.random() < 0.5)
                  for _ in range(number)]
        placed, size = scatter(hand.rng, images), 0.95 * size
    counted = f"{NUMBERS[number]} {thing.name if number == 1 else thing.plural}"
    drawn = tuple(Drawn(thing, sketch) for sketch in placed)
    return Shown(hand.page(images), drawn, hand.say(COUNT, thing), NUMBERS[number], counted)


def position(hand: Hand) -> Shown:
    """Where one thing is, alone or with a second one; or what the second is that lies beside it or at a side."""
    if hand.rng.random() < 0.5:
        thing, where = hand.choose("position", EVERY, tuple(PLACES))
        image = hand.sketch(thing, (0.3, 0.45))
        page = hand.page([image])
        drawn = (Drawn(thing, (image, _near(hand, where)), hand.natural(thing, image), where),)
        more = (Asked(NAME, thing.phrase),)
        return Shown(page, drawn, hand.say(PLACE, thing), at(where), f"{thing.phrase} {at(where)}", more)
    pair = pick(hand.rng, tuple(PAIRS))
    (first, _), (second, _) = (hand.choose("position", EVERY, (where,)) for where in pair)
    while second == first:
        second, _ = hand.choose("position", EVERY, (pair[1],))
    images = [hand.sketch(thing, (0.3, 0.42)) for thing in (first, second)]
    page = hand.page(images)
    drawn = tuple(Drawn(thing, (image, _near(hand, where)), hand.natural(thing, image), where)
                  for thing, image, where in zip((first, second), images, pair, strict=True))
    asked = hand.rng.integers(2)  # which of the two the answer is about
    chance, caption = hand.rng.random(), f"{first.phrase} {PAIRS[pair][0]} {second.phrase}"
    more = tuple(question for i, one, two in ((0, first, second), (1, second, first)) for question in (
        Asked(said_of(BESIDE, two, relation=PAIRS[pair][i]), one.phrase),
        Asked(said_of(AT_SIDE, place=at(pair[i])), one.phrase), Asked(said_of(PLACE, one), at(pair[i]))))
    phrasings, answer = more[3 * asked + (0 if chance < 0.4 else 1 if chance < 0.7 else 2)]
    return Shown(page, drawn, pick(hand.rng, phrasings), answer, caption, more)


def several(hand: Hand) -> Shown:
    """Two or three things in a row, named from left to right."""
    number = 2 if hand.rng.random() < 0.7 else 3
    while True:
        things = hand.choose("several", *[EVERY] * number)
        if len(set(things)) == number:
            break
    images = [hand.sketch(thing, (0.75 / number, 0.95 / number), turn=12.0) for thing in things]
    answer = listed(things)
    # Of no combination that the kind `position` holds out.
    sides = [(thing, where) for thing, where in ((things[0], "left"), (things[-1], "right"))
             if not is_held_out("position", thing, where)]
    more = tuple(question for thing, where in sides for question in (
        Asked(said_of(AT_SIDE, place=at(where)), thing.phrase), Asked(said_of(PLACE, thing), at(where))))
    page = hand.page(images)
    drawn = tuple(Drawn(thing, sketch, hand.natural(thing, sketch[0]))
                  for thing, sketch in zip(things, _row(hand, images), strict=True))
    return Shown(page, drawn, hand.say(SEVERAL), answer, answer, more)


def four(hand: Hand) -> Shown:
    """Four things, one in each quarter: for the vision tower alone, which is shown more of them in the same time."""
    things = [EVERY[i] for i in hand.rng.choice(len(EVERY), 4, replace=False)]
    images = [hand.sketch(thing, (0.36, 0.5), turn=25.0) for thing in things]
    centres = np.array(QUARTERS) + hand.rng.uniform(-0.05, 0.05, (4, 2))
    answer = listed(things)
    drawn = tuple(Drawn(thing, (image, tuple(centre)), hand.natural(thing, image))
                  for thing, image, centre in zip(things, images, centres, strict=True))
    return Shown(hand.page(images), drawn, None, answer, answer)


def nothing(hand: Hand) -> Shown:
    """A question about a picture that nobody has shown."""
    thing, phrasing = hand.choose("nothing", EVERY, ASKED_BLIND)
    # What names no thing is asked in both parts.
    phrasing = pick(hand.rng, NAME + COLOUR[:2] + COUNT[:2]) if hand.rng.random() < 0.3 else phrasing
    return Shown(None, (), hand.say((phrasing,), thing), "I see no picture.", "")


MAKERS: dict[str, Callable[[Hand], Shown]] = {"name": name, "colour": colour, "count": count, "position": position,
                               "several": several, "four": four, "nothing": nothing}


def said_of(phrasings: tuple[str, ...], thing: Thing | None = None, **words: str) -> tuple[str, ...]:
    """The phrasings with these words and the thing's in their places."""
    if thing:
        words |= {"name": thing.name, "plural": thing.plural, "verb": thing.verb, "phrase": thing.phrase}
    return tuple(phrasing.format(**words) for phrasing in phrasings)


def at(where: str) -> str:
    """One of PLACES in words."""
    return {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom",
            "middle": "in the middle"}[where]


def listed(things: Sequence[Thing]) -> str:
    """Two or more in words."""
    *phrases, last = (thing.phrase for thing in things)
    return f"{', '.join(phrases)} and {last}"


def colours(drawn: tuple[Drawn, ...]) -> tuple[Asked, ...]:
    """What can be asked of the colours of different things."""
    phrasings = COLOUR if len(drawn) == 1 else COLOUR[2:]
    return tuple(Asked(said_of(phrasings, each.thing), each.colour) for each in drawn if each.colour)


def cells(drawn: tuple[Drawn, ...]) -> str:
    """A line for each cell of the page, in raster order: how many things there are, and of those that cover a good part
    of the cell the name, with the colour and the place that are known. Of a single thing whose number is held out,
    `Some`."""
    shares, told = [covered(each.sketch) for each in drawn], NUMBERS[len(drawn)].capitalize()
    if len(drawn) == 1 and is_held_out("count", drawn[0].thing, 1):
        told = "Some"
    words = [" ".join(filter(None, (each.colour, each.thing.name, each.place))) for each in drawn]
    lines = []
    for cell in np.ndindex(CELLS, CELLS):
        there = {word: None for word, share in zip(words, shares, strict=True) if share[cell] > COVERED}
        lines.append(" ".join((told, *there)))
    return "\n".join(lines)


def _near(hand: Hand, where: str) -> tuple[float, float]:
    """A centre about that place, in frames."""
    x, y = np.array(PLACES[where]) + hand.rng.uniform(-0.07, 0.07, 2)
    return x, y


def _row(hand: Hand, images: list[Image.Image]) -> list[Sketch]:
    """Side by side, each in its share of the width."""
    return [(image, ((i + 0.5) / len(images), hand.rng.uniform(0.3, 0.7))) for i, image in enumerate(images)]
