"""Makes a small data set to try training on: pictures of shapes, beeps, videos of moving shapes with beeps, and text.

Every answer is one word that can be seen, heard or read off. Writes OUT/train.jsonl and OUT/held_out.jsonl, and one of
each for every kind (train_pictures.jsonl, …); held-out examples combine what training shows in combinations that it
never shows. The same seed gives the same data. Videos are to be heard as well: train with use_audio_in_video.

Example:
  python -m tools.smoke_data /tmp/smoke --train 400 --held-out 80 --seed 0
"""

import itertools
import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from omni_jax.errors import OmniError
from omni_jax.weights.files import progress_bar, whole_directory
from tools._cli import parser, run
from tools._sound import RATE, write_wav

COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 230), "yellow": (240, 210, 40)}
SHAPES = ("circle", "square", "triangle")
PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
PITCHES = {"low": 350.0, "high": 1500.0}
NUMBERS = ("zero", "one", "two", "three", "four")
FRAME_RATE, FRAMES, SIDE = 4, 6, 84
# What is combined in an example of each kind. See `split`.
KINDS = {
    "pictures": (tuple(COLOURS), SHAPES, (1, 2, 3), tuple(PLACES)),
    "sounds": ((1, 2, 3, 4), tuple(PITCHES), (0.9, 1.0, 1.1)),
    "videos": (tuple(WAYS), (0, 1, 2, 3), tuple(COLOURS)),
    "texts": (("copy", "add"), tuple(range(10)), tuple(range(10))),
}


def picture(example: tuple, path: Path, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Draws one to three equal shapes at one side; returns questions and answers."""
    colour, shape, count, place = example
    side = int(rng.choice([56, 84, 112]))
    image = Image.new("RGB", (side, side), "white")
    dx, dy = PLACES[place]
    for i in range(count):  # in a row along the side
        along = (i - (count - 1) / 2) * 0.3
        x, y = 0.5 + (0.3 * dx or along), 0.5 + (0.3 * dy or along)
        draw_shape(image, shape, COLOURS[colour], (x * side, y * side), 0.12 * side)
    image.save(path.with_suffix(".png"))
    return [("What colour?", colour), ("Which shape?", shape), ("How many?", NUMBERS[count]), ("Where?", place)]


def draw_shape(image: Image.Image, shape: str, colour: tuple[int, int, int], centre: tuple[float, float],
               radius: float) -> None:
    draw, (x, y) = ImageDraw.Draw(image), centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)


def beeps(count: int, frequency: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """float32 [samples]: short tones at even distances over a little noise."""
    waveform = 0.01 * rng.standard_normal(int(seconds * RATE)).astype(np.float32)
    tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(0.15 * RATE)) / RATE) * np.hanning(int(0.15 * RATE))
    for i in range(count):
        start = int((i + rng.uniform(0.2, 0.4)) * len(waveform) / max(count, 1) / 1.2)
        waveform[start : start + len(tone)] += tone[: len(waveform) - start]
    return waveform


def sound(example: tuple, path: Path, rng: np.random.Generator) -> list[tuple[str, str]]:
    count, pitch, bend = example
    write_wav(path.with_suffix(".wav"), beeps(count, bend * PITCHES[pitch], rng.uniform(1.2, 1.8), rng))
    return [("How many beeps?", NUMBERS[count]), ("High or low?", pitch)]


def video(example: tuple, path: Path, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A circle that crosses the picture, with beeps."""
    way, count, colour = example
    seconds, (dx, dy) = FRAMES / FRAME_RATE, WAYS[way]
    with av.open(str(path.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(FRAME_RATE))
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
        track = container.add_stream("aac", rate=RATE, layout="mono")
        for i in range(FRAMES):
            image, step = Image.new("RGB", (SIDE, SIDE), "white"), 0.6 * (i / (FRAMES - 1) - 0.5)
            centre = (SIDE * (0.5 + dx * step), SIDE * (0.5 + dy * step))
            draw_shape(image, "circle", COLOURS[colour], centre, 0.15 * SIDE)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
        mux_sound(container, track, beeps(count, PITCHES["high"], seconds, rng))
    return [("Which way does it move?", way), ("How many beeps?", NUMBERS[count]), ("What colour?", colour)]


def mux_sound(container: Any, track: Any, waveform: np.ndarray) -> None:
    for start in range(0, len(waveform), 1024):
        frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def text(example: tuple, path: Path, rng: np.random.Generator) -> list[tuple[str, str]]:
    task, a, b = example
    word = chr(ord("a") + a) + chr(ord("k") + b)
    return [(f"Say {word * 2}.", word * 2)] if task == "copy" else [(f"{a} + {b} =", str(a + b))]


MAKERS: dict[str, tuple[Callable, dict[str, Any]]] = {  # the maker, and the item of the content that shows its file
    "pictures": (picture, {"type": "image", "image": "{}.png"}),
    "sounds": (sound, {"type": "audio", "audio": "{}.wav"}),
    "videos": (video, {"type": "video", "video": "{}.mp4", "fps": FRAME_RATE, "resized_height": SIDE,
                       "resized_width": SIDE}),
    "texts": (text, {}),
}


def split(kind: str) -> tuple[list[tuple], list[tuple]]:
    """The combinations of a kind that are trained on, and those that are held out: about every fourth, so chosen that
    each word of an answer is trained on."""
    train, held_out = [], []
    for indices in itertools.product(*(range(len(axis)) for axis in KINDS[kind])):
        example = tuple(axis[i] for axis, i in zip(KINDS[kind], indices, strict=True))
        (train if sum(k * i for k, i in enumerate(indices, 1)) % 4 else held_out).append(example)
    return train, held_out


def make(kind: str, name: str, example: tuple, out: Path, rng: np.random.Generator) -> dict[str, Any]:
    """One example, its file written; returns its record in the manifest."""
    maker, item = MAKERS[kind]
    questions = maker(example, out / kind / name, rng)
    question, answer = questions[rng.integers(len(questions))]
    shown = [{k: v.format(f"{kind}/{name}") if k == item["type"] else v for k, v in item.items()}] if item else []
    return {"id": name, "kind": kind, "messages": [
        {"role": "user", "content": [*shown, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer}]}


def write(out: Path, part: str, count: int, combinations: dict[str, list[tuple]], rng: np.random.Generator,
          bar: Any) -> None:
    """The examples of `part` (train or held_out), of all kinds in turn, and their manifests."""
    records = []
    for i, kind in zip(range(count), itertools.cycle(KINDS), strict=False):
        example = combinations[kind][rng.integers(len(combinations[kind]))]
        records.append(make(kind, f"{part}-{i:05d}", example, out, rng))
        bar.update()
    for kind in (None, *KINDS):
        chosen = [record for record in records if kind in (None, record["kind"])]
        path = out / f"{part}{f'_{kind}' if kind else ''}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in chosen))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = _parser().parse_args(argv)
    if min(arguments.train, arguments.held_out) < len(KINDS):
        raise OmniError(f"--train and --held-out must be {len(KINDS)} or more, one example of each kind")
    started, rng = time.perf_counter(), np.random.default_rng(arguments.seed)
    counts = {"train": arguments.train, "held_out": arguments.held_out}
    with whole_directory(arguments.out) as out, progress_bar(sum(counts.values()), "making", True, "") as bar:
        for kind in KINDS:
            (out / kind).mkdir()
        for i, (part, count) in enumerate(counts.items()):
            write(out, part, count, {kind: split(kind)[i] for kind in KINDS}, rng, bar)
    return {"directory": str(arguments.out), **counts, "seconds": round(time.perf_counter() - started, 2)}


def _parser():
    made = parser(__doc__)
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--train", type=int, default=400, help="examples to train on (default 400)")
    made.add_argument("--held-out", type=int, default=80, help="examples to evaluate on (default 80)")
    made.add_argument("--seed", type=int, default=0)
    return made


if __name__ == "__main__":
    run(main)
