"""Pictures and videos of the tiny model's data. The icon packages are no part of the project: OMNI_TINY_PACKAGES names
the folder that holds them unpacked; without it, what needs drawings is skipped."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omni_jax.data.audio import load_audio
from omni_jax.data.video import load_video
from omni_jax.errors import OmniError
from tools.tiny_data import canvas, examples, seeing, watching
from tools.tiny_data.drawings import (
    COLOURS,
    STYLES,
    UNSEEN,
    Drawings,
    bend,
    colour_of,
    nearest,
    place,
    recolour,
    restyle,
)
from tools.tiny_data.things import THINGS


@pytest.fixture(scope="module")
def drawings():
    folder = os.environ.get("OMNI_TINY_PACKAGES")
    if not folder:
        pytest.skip("OMNI_TINY_PACKAGES names no folder with the icon packages")
    if importlib.util.find_spec("resvg_py") is None:
        pytest.skip("resvg_py is not installed")
    return Drawings(folder)


@pytest.fixture(scope="module")
def pictures(drawings, tmp_path_factory):
    out = tmp_path_factory.mktemp("seeing") / "data"
    return out, seeing.write(out, drawings, 60, 60, seed=3, workers=1)


@pytest.fixture(scope="module")
def videos(drawings, tmp_path_factory):
    out = tmp_path_factory.mktemp("watching") / "data"
    return out, watching.write(out, drawings, 12, 12, seed=3, workers=1)


def lines(out: Path, part: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"{part}.jsonl").read_text().splitlines()]


def files(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}


def test_things_are_named_as_in_a_sentence():
    assert len(THINGS) > 160 and all(name == name.lower() and len(name.split()) < 3 for name in THINGS)
    phrases = [THINGS[name].phrase for name in ("cat", "owl", "unicorn", "scissors", "bread")]
    assert phrases == ["a cat", "an owl", "a unicorn", "scissors", "bread"]
    plurals = [THINGS[name].plural for name in ("cat", "fox", "mouse", "scissors")]
    assert plurals == ["cats", "foxes", "mice", "scissors"]
    icons = [icon for thing in THINGS.values() for icon in thing.icons]
    assert len(icons) == len(set(icons))


def test_what_is_held_out_is_one_combination_in_five():
    shares = [examples.is_held_out("colour", thing, colour) for thing in THINGS for colour in COLOURS]
    assert 0.17 < np.mean(shares) < 0.23
    rng = np.random.default_rng(0)
    for part in (examples.TRAIN, examples.HELD_OUT):
        for _ in range(20):
            chosen = examples.choose(rng, part, "colour", tuple(THINGS), tuple(COLOURS))
            assert examples.is_held_out("colour", *chosen) == (part == examples.HELD_OUT)


def test_without_the_packages_it_is_told(tmp_path):
    with pytest.raises(OmniError, match="iconify"):
        Drawings(tmp_path)


def test_placed_drawings_lie_apart():
    images = [Image.new("RGBA", (25, 30), "red")] * 6
    rng = np.random.default_rng(0)
    placed = next(found for found in iter(lambda: canvas.scatter(rng, images), 0) if found)
    pixels = np.asarray(canvas.compose(Image.new("RGB", (canvas.FRAME, canvas.FRAME)), placed))[..., 0]
    assert (pixels == 255).sum() == 6 * 25 * 30


@pytest.mark.parametrize("sound", watching.SOUNDS)
def test_sounds_are_what_they_are_called(sound):
    made = watching.noise_of(np.random.default_rng(1), sound)
    assert made.dtype == np.float32 and np.abs(np.append(made, 0)).max() < 1
    if isinstance(sound, int):
        loud = np.abs(np.concatenate([np.zeros(800), made])) > 0.02
        onsets = loud[800:] & ~np.array([loud[i : i + 800].any() for i in range(len(made))], bool)
        assert onsets.sum() == sound


def test_every_thing_is_drawn_in_every_style(drawings):
    for style in (*STYLES, UNSEEN):
        assert all(drawings.svg(style, icon) for thing in THINGS.values() for icon in thing.icons)
    image = drawings.draw(UNSEEN, "cat")
    assert max(image.size) == 128 and drawings.draw(UNSEEN, "cat") is image
    assert max(place(image, 40).size) in (39, 40) and bend(image, np.random.default_rng(0)).size == image.size


def test_things_of_one_colour_are_told_from_others(drawings):
    """As they stand, and in every colour that they are given."""
    known = {"lemon": "yellow", "frog": "green", "blue-book": "blue", "lobster": "red", "teddy-bear": "brown",
             "tangerine": "orange", "grapes": "purple", "panda": None, "swan": None, "rainbow": None}
    assert {icon: colour_of(drawings.draw("noto", icon)) for icon in known} == known
    assert all(colour_of(recolour(drawings.draw("noto", name), colour)) == colour
               for colour in COLOURS for name in ("cat", "swan", "bus", "owl"))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_recoloured_drawing_is_nearest_to_its_colour(drawings, colour):
    for name in ("cat", "swan", "bomb", "bus"):
        pixels = np.asarray(recolour(drawings.draw("noto", name), colour), float)
        mean = np.average(pixels[..., :3], axis=(0, 1), weights=pixels[..., 3])
        assert min(COLOURS, key=lambda other: np.linalg.norm(mean - COLOURS[other])) == colour


def test_pixels_alone_name_some_of_the_unseen_style(drawings):
    assert 0.2 < nearest(drawings, coloured=False) < nearest(drawings) < 0.8


def test_pictures_and_their_questions(pictures):
    out, told = pictures
    for part in ("train", "held_out"):
        assert sum(told[part].values()) == len(lines(out, part)) == 60
        for record in lines(out, part):
            *shown, question = record["messages"][0]["content"]
            assert question["text"][-1] in "?." and record["messages"][1]["content"].endswith(".")
            assert bool(shown) == (record["kind"] != "nothing") == ("style" in record)
            if shown:
                assert Image.open(out / shown[0]["image"]).size == (112, 112)
            unseen = record.get("style") == UNSEEN
            assert not (unseen and part == "train") and (unseen or record["kind"] != "name" or part == "train")


def test_looking_asks_more_of_a_picture(drawings, tmp_path):
    """Each picture is asked about up to four times, not twice the same, and of no combination that is held out."""
    told = seeing.looking(tmp_path / "data", drawings, 80, seed=3, workers=1)
    where = {seeing.at(place).capitalize() + ".": place for place in seeing.PLACES}
    turns = {record["id"]: record for record in lines(tmp_path / "data", "train")}
    assert sum(told["train"].values()) == len(turns) == 80 and told["train"]["count"] > told["train"]["name"]
    for record in turns.values():
        questions = [turn["content"][-1]["text"] for turn in record["messages"][::2]]
        answers = [turn["content"] for turn in record["messages"][1::2]]
        assert len(questions) == len(answers) <= 4 and questions[0] not in questions[1:]
        assert all(len(turn["content"]) == 1 for turn in record["messages"][2::2])  # shown once
        for question, answer in zip(questions, answers, strict=True):
            asked = [thing for thing in THINGS.values() if question in seeing.said_of(seeing.PLACE, thing)]
            assert record["kind"] == "nothing" or len(asked) == (answer in where)
            assert answer not in where or not examples.is_held_out("position", asked[0], where[answer])
    assert {record["kind"] for record in turns.values() if len(record["messages"]) == 8} == {"position", "several"}


def test_plain_drawings_are_asked_about_as_they_are(drawings, tmp_path):
    """Each once, upright in the middle of white: what the nearest by pixels is asked about as well."""
    seeing.plain(tmp_path / "plain", drawings)
    icons = sum(len(thing.icons) for thing in THINGS.values())
    asked, known = (lines(tmp_path / "plain", part) for part in ("held_out", "train"))
    assert len({record["id"] for record in asked}) == len(asked) == icons and len(known) == len(STYLES) * icons
    assert {record["style"] for record in asked} == {UNSEEN} and {record["style"] for record in known} == set(STYLES)
    cat = next(record for record in asked if record["id"] == f"{UNSEEN}-cat")
    assert cat["messages"][1]["content"] == "A cat."
    page = Image.open(tmp_path / "plain" / cat["messages"][0]["content"][0]["image"])
    assert page.size == (112, 112) and page.getpixel((0, 0)) == (255, 255, 255)


def test_scanning_shows_four_things(drawings, tmp_path):
    """Another one in each quarter, which its middle cells tell; and nothing of the places that can be held out."""
    told = seeing.scanning(tmp_path / "data", drawings, 12, seed=3, workers=1)
    assert told["train"] == {"four": 12}
    assert not (tmp_path / "data" / "train.jsonl").exists()  # nothing is asked
    captions = {record["id"]: record["messages"][1]["content"] for record in lines(tmp_path / "data", "captions_train")}
    for record in lines(tmp_path / "data", "cells_train"):
        cells = np.array(record["messages"][1]["content"].split("\n")).reshape(canvas.CELLS, canvas.CELLS)
        named = [{name for name in THINGS for line in part.ravel() if f" {name} " in line + " "}
                 for half in np.split(cells, 2) for part in np.split(half, 2, axis=1)]
        assert all(named) and len(set.union(*named)) >= 4
        assert all(line.startswith("Four") for line in cells.ravel())
        assert all(any(THINGS[name].phrase in captions[record["id"]].lower() for name in names) for names in named)
        assert not any(line.endswith(tuple(seeing.PLACES)) for line in cells.ravel())


def test_restyled_drawings_keep_their_shape(drawings, tmp_path):
    """Other colours, shades and outlines, over about the same part of the page; and unlike one another."""
    rng = np.random.default_rng(0)
    for thing in (THINGS["cat"], THINGS["rocket"]):
        original = drawings.draw(STYLES[0], thing.icons[0])
        restyled = [restyle(original, rng) for _ in range(8)]
        small = [np.asarray(image.resize((32, 32), Image.Resampling.BOX), float) for image in (original, *restyled)]
        visible = [image[..., 3] > 127 for image in small]
        overlap = [(visible[0] & other).sum() / (visible[0] | other).sum() for other in visible[1:]]
        assert max(image.width for image in restyled) <= 80 and min(overlap) > 0.7 and min(overlap) < 1
        means = np.array([image[..., :3][seen].mean(0) for image, seen in zip(small, visible, strict=True)])
        assert np.linalg.norm(means[1:] - means[0], axis=1).max() > 60 and means[1:].std(0).min() > 10
    told = seeing.restyling(tmp_path / "data", drawings, 20, seed=3, workers=1)
    assert set(told["train"]) == {"name", "count", "four"}
    asked = lines(tmp_path / "data", "train")
    assert {record["kind"] for record in asked} == {"name", "count"}
    assert {record["style"] for record in lines(tmp_path / "data", "cells_train")} == set(STYLES)


def test_pictures_are_described(pictures):
    """What is asked of a picture is in its caption."""
    out, _ = pictures
    for part in ("train", "held_out"):
        described = {record["id"]: record["messages"] for record in lines(out, f"captions_{part}")}
        shown = {record["id"]: record for record in lines(out, part) if record["kind"] != "nothing"}
        assert described.keys() == shown.keys()
        for name, (asked, said) in described.items():
            assert asked["content"] == shown[name]["messages"][0]["content"][:1]
            answer = shown[name]["messages"][1]["content"].rstrip(".").lower()
            implied = answer.startswith(("on the", "at the"))  # of one above another, or left of it
            assert implied or answer in said["content"].lower(), (answer, said)


def test_cells_tell_what_lies_in_them():
    """A line for each, in raster order; of a thing that is held out as one, not how many there are."""
    side = canvas.FRAME // canvas.CELLS
    at = lambda row, column: tuple((each + 0.5) * side / canvas.FRAME for each in (column, row))
    drawn = lambda name, row, column, *told: seeing.Drawn(
        THINGS[name], (Image.new("RGBA", (side, side), "red"), at(row, column)), *told)
    told = seeing.cells((drawn("cat", 1, 0, "red", "left"), drawn("dog", 1, 3), drawn("fox", 1, 3))).split("\n")
    assert told == [*["Three"] * 4, "Three red cat left", "Three", "Three", "Three dog fox", *["Three"] * 8]
    assert seeing.cells((drawn("cat", 0, 0), drawn("cat", 0, 0))).split("\n") == ["Two cat", *["Two"] * 15]
    held_out = {name: examples.is_held_out("count", THINGS[name], 1) for name in ("cat", "dog", "fox", "owl", "bee")}
    assert set(held_out.values()) == {True, False}
    for name, out in held_out.items():
        assert seeing.cells((drawn(name, 0, 0),)).startswith(f"Some {name}\n" if out else f"One {name}\n")


def test_cells_do_not_tell_what_is_held_out(drawings, tmp_path):
    seeing.looking(tmp_path / "data", drawings, 80, seed=3, workers=1)
    shown = {record["id"]: record for record in lines(tmp_path / "data", "captions_train")}
    told = {record["id"]: record["messages"][1]["content"].split("\n")
            for record in lines(tmp_path / "data", "cells_train")}
    assert told.keys() == shown.keys() and all(len(each) == canvas.CELLS**2 for each in told.values())
    coloured = [(colour, name) for each in told.values() for line in each for colour in COLOURS for name in THINGS
                if f" {colour} {name} " in line + " "]
    assert len(coloured) > 20
    assert not any(examples.is_held_out("colour", THINGS[name], colour) for colour, name in coloured
                   if not any(name != other and other.startswith(name) for other in THINGS))


def test_a_cell_is_covered_as_far_as_the_drawing_is_opaque():
    image = Image.new("RGBA", (56, 28), "red")
    side = canvas.FRAME // canvas.CELLS
    shares = canvas.covered((image, (0.5, (1.5 * side) / canvas.FRAME)))
    assert shares[1].tolist() == [0, 1, 1, 0] and shares.sum() == 2
    shares = canvas.covered((image, (0.0, 0.0)))  # moved inside, as it is drawn
    assert shares[0].tolist() == [1, 1, 0, 0] and shares.sum() == 2


def test_videos_are_read_with_their_sound(videos):
    out, _ = videos
    for record in lines(out, "train") + lines(out, "held_out"):
        item, question = record["messages"][0]["content"]
        path = str(out / item["video"])
        frames, plan = load_video(path, item)
        assert frames.shape[1:] == (112, 112, 3) and len(frames) in watching.LENGTHS and plan.has_sound
        assert abs(len(load_audio(path)) / 16_000 - plan.seconds) < 0.1
        assert question["text"] and record["messages"][1]["content"][0].isupper()


def test_a_video_is_asked_about_in_turns_in_training_alone(videos):
    out, _ = videos
    assert all(len(record["messages"]) == 2 for record in lines(out, "held_out"))
    for record in lines(out, "train"):
        (first, *others), answers = record["messages"][::2], record["messages"][1::2]
        assert len(others) >= 2 and len(answers) == len(others) + 1
        assert first["content"][0]["type"] == "video" and all(turn["content"][0]["type"] == "text" for turn in others)
        told = [turn["content"] for turn in answers]
        assert ("Before." in told or "After." in told) != ("Nothing." in told)


def test_the_same_seed_makes_the_same_files_in_any_number_of_processes(drawings, pictures, videos, tmp_path):
    for module, (out, _), number in ((seeing, pictures, 60), (watching, videos, 12)):
        again, other = tmp_path / f"{out.parent.name}_again", tmp_path / f"{out.parent.name}_other"
        module.write(again, drawings, number, number, seed=3, workers=2)
        module.write(other, drawings, number, number, seed=4, workers=1)
        assert files(out) == files(again) != files(other)
