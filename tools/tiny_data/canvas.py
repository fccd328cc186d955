"""Pictures put together: backgrounds that a drawing stands out from, drawings on them, and what a camera would add."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from tools.tiny_data.drawings import mean_colour

FRAME = 112  # pixels, both ways: CELLS tokens of the vision tower
CELLS = 4
CONTRAST = 75.0  # distance of mean colours, of 441, from which a drawing stands out
Sketch = tuple[Image.Image, tuple[float, float]]  # a drawing and its centre, in frames


def background(rng: np.random.Generator, beside: Iterable[Image.Image] = (), plain: bool = False) -> Image.Image:
    """RGB [FRAME, FRAME]: plain, a gradient, noise, checks or stripes, unlike the colours of what will stand on it."""
    means = [mean_colour(image) for image in beside]
    for _ in range(20):
        first, second = _colour(rng), _colour(rng)
        mixed = first if plain else _pattern(rng, first, second)
        mean = mixed if mixed.ndim == 1 else mixed.mean((0, 1))
        if all(np.linalg.norm(mean - other) > CONTRAST for other in means):
            break
    pixels = np.broadcast_to(mixed, (FRAME, FRAME, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def compose(page: Image.Image, sketches: Iterable[Sketch]) -> Image.Image:
    """The page with all drawings on it, each moved so that it lies inside."""
    page = page.copy()
    for image, corner in map(_inside, sketches):
        page.paste(image, corner, image)
    return page


def covered(sketch: Sketch) -> np.ndarray:
    """float [CELLS, CELLS] in 0 to 1: how much of each cell of the page (row, column) the drawing covers."""
    image, corner = _inside(sketch)
    page = Image.new("L", (FRAME, FRAME))
    page.paste(image.getchannel("A"), corner)
    side = FRAME // CELLS
    return np.asarray(page, float).reshape(CELLS, side, CELLS, side).mean((1, 3)) / 255


def scatter(rng: np.random.Generator, images: list[Image.Image]) -> list[Sketch] | None:
    """Centres at which the drawings' boxes do not touch, or None where none were found."""
    placed: list[Sketch] = []
    for image in images:
        half = np.array(image.size) / 2 / FRAME
        for _ in range(60):
            centre = rng.uniform(half, 1 - half)
            gaps = (np.abs(centre - at) - half - np.array(other.size) / 2 / FRAME for other, at in placed)
            if all(gap.max() > 0.02 for gap in gaps):
                placed.append((image, tuple(centre)))
                break
        else:
            return None
    return placed


def photograph(rng: np.random.Generator, image: Image.Image, path: Path) -> None:
    """Writes the picture as JPEG: sometimes darker, blurred or noisy."""
    if rng.random() < 0.3:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.2))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.15:
        noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 10), (FRAME, FRAME, 1))
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    image.save(path, quality=int(rng.integers(80, 96)))


def _inside(sketch: Sketch) -> tuple[Image.Image, tuple[int, int]]:
    """The drawing, not above the page's size, and the pixel of its upper left corner."""
    image, centre = sketch
    if max(image.size) > FRAME:
        image = image.copy()
        image.thumbnail((FRAME, FRAME), Image.Resampling.LANCZOS)
    left, top = (round(min(max(FRAME * at - side / 2, 0), FRAME - side))
                 for at, side in zip(centre, image.size, strict=True))
    return image, (left, top)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """float [3], 0 to 255: white, pale, grey or anything."""
    chance = rng.random()
    if chance < 0.25:
        return np.full(3, 255.0)
    if chance < 0.55:
        return 255 - 90 * rng.random(3)
    return np.full(3, 255 * rng.random()) if chance < 0.65 else 255 * rng.random(3)


def _pattern(rng: np.random.Generator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float [3] or [FRAME, FRAME, 3] of one or two colours."""
    chance, (y, x) = rng.random(), np.mgrid[:FRAME, :FRAME] / FRAME
    if chance < 0.4:
        return first
    if chance < 0.6:  # a gradient in any direction
        angle = rng.uniform(0, 2 * np.pi)
        share = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)
    elif chance < 0.75:  # clouds of noise, coarse to fine
        cells = int(rng.choice([4, 8, 16, 56]))
        share = np.asarray(Image.fromarray(rng.random((cells, cells), np.float32)).resize((FRAME, FRAME), 2))
        share = 0.6 * share
    elif chance < 0.9:  # checks
        cells = rng.integers(2, 9)
        share = 0.5 * ((np.floor(x * cells) + np.floor(y * cells)) % 2)
    else:  # stripes
        share = 0.5 * (np.floor((x if rng.random() < 0.5 else y) * rng.integers(3, 12)) % 2)
    return first + share[..., None] * (second - first)
