"""Drawings of things, from three sets of icons: rendered once, then turned, scaled, flipped and given other colours."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from omni_jax.errors import OmniError, require
from tools.tiny_data.things import THINGS, Thing

STYLES = ("noto", "fluent-emoji-flat")  # that are trained on
UNSEEN = "twemoji"  # the style that no training picture has
SIDE = 128  # pixels of a drawing in store
COLOURS = {"red": (220, 30, 35), "orange": (250, 140, 20), "yellow": (250, 220, 30), "green": (40, 160, 60),
           "blue": (40, 90, 225), "purple": (135, 55, 185), "pink": (250, 130, 190), "brown": (125, 75, 40)}
_HUES = {"red": 12, "orange": 39, "yellow": 63, "green": 165, "blue": 255, "purple": 300, "pink": 345}  # ends, degrees
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class Drawings:
    """The icons of all styles. `folder` holds the unpacked packages @iconify-json/{noto, twemoji, fluent-emoji-flat},
    each in a directory of any name. Pickles as its folder. Raises OmniError where a set or a renderer is missing."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._sets = {style: _read(self.folder, style) for style in (*STYLES, UNSEEN)}
        self._rendered: dict[tuple[str, str], Image.Image] = {}

    def __reduce__(self):
        return Drawings, (self.folder,)

    def draw(self, style: str, icon: str) -> Image.Image:
        """RGBA, cut to what is visible, its longer side SIDE pixels. Not to be changed in place."""
        if (style, icon) not in self._rendered:
            image = _render(self.svg(style, icon), 2 * SIDE)
            image = image.crop(image.getchannel("A").getbbox())
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            self._rendered[style, icon] = image
        return self._rendered[style, icon]

    def any_of(self, thing: Thing, style: str, rng: np.random.Generator) -> Image.Image:
        return self.draw(style, thing.icons[rng.integers(len(thing.icons))])

    def svg(self, style: str, icon: str) -> str:
        """The icon as an SVG document; aliases are followed to their parent."""
        found, flipped = self._sets[style], False
        while icon not in found["icons"]:
            require(icon in found.get("aliases", {}), str(self.folder), f"the icons {style} have no {icon}")
            alias = found["aliases"][icon]
            icon, flipped = alias["parent"], flipped ^ alias.get("hFlip", False)
        entry = {**found, **found["icons"][icon]}
        width, height, body = entry.get("width", 16), entry.get("height", 16), entry["body"]
        body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>' if flipped else body
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{body}</svg>'


def place(image: Image.Image, size: float, angle: float = 0.0, flip: bool = False) -> Image.Image:
    """RGBA: the drawing with its longer side `size` pixels, then turned by `angle` degrees, cut to what is visible."""
    scale = size / max(image.size)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    shape = [max(round(scale * side), 1) for side in image.size]
    image = image.resize(shape, Image.Resampling.LANCZOS)
    return image.crop(image.getchannel("A").getbbox())


def recolour(image: Image.Image, colour: str) -> Image.Image:
    """The drawing in shades of one of COLOURS: its mean luminance becomes the colour itself, darker and lighter parts
    darker and lighter shades, but none so far that another name would fit it."""
    pixels = np.asarray(image, np.float32)
    light, weight = pixels[..., :3] @ _LUMINANCE / 255, pixels[..., 3]
    middle = np.clip(np.average(light, weights=weight), 0.05, 0.95)
    darker = np.clip(1 - 0.5 * (middle - light) / middle, 0.5, 1)[..., None]
    lighter = np.clip(0.55 * (light - middle) / (1 - middle), 0, 0.55)[..., None]
    shades = np.array(COLOURS[colour], np.float32) * darker
    shades += lighter * (255 - shades)
    return Image.fromarray(np.concatenate([shades, weight[..., None]], -1).round().astype(np.uint8))


def jitter(image: Image.Image, rng: np.random.Generator, hue: float = 0.06) -> Image.Image:
    """Other hue (by up to `hue` of the circle), saturation, brightness and contrast; the shape stays."""
    shade, saturation, value = image.convert("RGB").convert("HSV").split()
    steps = int(256 * rng.uniform(-hue, hue))
    shade = shade.point([(i + steps) % 256 for i in range(256)])
    changed = Image.merge("HSV", (shade, saturation, value)).convert("RGB")
    for enhancer, spread in ((ImageEnhance.Color, 0.4), (ImageEnhance.Brightness, 0.25), (ImageEnhance.Contrast, 0.3)):
        changed = enhancer(changed).enhance(rng.uniform(1 - spread, 1 + spread))
    changed.putalpha(image.getchannel("A"))
    return changed


def bend(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """RGBA, the size it had: slanted and stretched by up to a quarter, as another hand might have drawn it."""
    (slant, lean), (wide, high) = rng.uniform(-0.2, 0.2, 2), rng.uniform(0.8, 1.0, 2)
    (width, height), matrix = image.size, np.array([[1 / wide, slant], [lean, 1 / high]])
    matrix *= 1 + 0.5 * (abs(slant) + abs(lean))  # so that no corner is cut off
    middle = np.array([width, height]) / 2
    shift = middle - matrix @ middle
    rows = (*matrix[0], shift[0], *matrix[1], shift[1])
    return image.transform(image.size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)


def flat(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """In few colours, without shading."""
    plain = image.convert("RGB").quantize(int(rng.integers(3, 8))).convert("RGB")
    plain.putalpha(image.getchannel("A"))
    return plain


def restyle(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """RGBA, at most 80 pixels a side: as some other set of drawings might have it. Outlines are warped, colours mixed
    anew, parts shaded by a random filter, in few shades, blurred or sharpened, each more or less; the shape stays."""
    small = image.copy()
    small.thumbnail((80, 80), Image.Resampling.BOX)
    pixels = np.asarray(_warp(small, rng), np.float32) / 255
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    mixed = np.eye(3) + rng.normal(0, 0.5 * rng.random(), (3, 3))
    colours = colours @ mixed.astype(np.float32) + rng.normal(0, 0.1, 3).astype(np.float32)
    greyed = min(1.3 * rng.random(), 1.0)
    colours = greyed * colours.mean(-1, keepdims=True) + (1 - greyed) * colours
    colours = np.clip(colours, 0, 1) ** np.exp(rng.random() - 0.5)
    if rng.random() < 0.6:
        share = rng.random()
        colours = np.clip((1 - share) * colours + share * _filtered(colours, rng), 0, 1)
    if rng.random() < 0.3:
        shades = rng.integers(2, 7)
        colours = np.round(colours * shades) / shades
    changed = Image.fromarray((255 * np.concatenate([colours, alpha], -1)).round().astype(np.uint8))
    return Image.blend(changed, changed.filter(ImageFilter.BoxBlur(rng.uniform(0.7, 2.5))), rng.uniform(-0.7, 1))


def _warp(image: Image.Image, rng: np.random.Generator, parts: int = 4) -> Image.Image:
    """The corners of `parts` x `parts` pieces each moved by up to 5 % of the drawing."""
    ticks = np.linspace(0, 1, parts + 1)
    corners = np.stack(np.meshgrid(ticks, ticks), -1)  # [row, column, (x, y)], in sides of the drawing
    ends = np.round(corners * image.size).astype(int)
    sources = (corners + rng.uniform(-0.05, 0.05, corners.shape)) * image.size
    return image.transform(image.size, Image.Transform.MESH, [
        ((*ends[i, j].tolist(), *ends[i + 1, j + 1].tolist()),
         tuple(np.concatenate([sources[i, j], sources[i + 1, j], sources[i + 1, j + 1], sources[i, j + 1]]).tolist()))
        for i, j in np.ndindex(parts, parts)], Image.Resampling.BILINEAR)


def _filtered(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[height, width, 3]: each channel a random mixture of all in a square of 1, 3 or 5 pixels, as in RandConv
    (Xu et al. 2021), which keeps the shape and little of its texture."""
    reach = int(rng.integers(3))
    offsets = range(-reach, reach + 1)
    out = np.zeros_like(colours)
    for y in offsets:
        for x in offsets:
            weights = rng.normal(0, 1 / np.sqrt(3 * len(offsets) ** 2), (3, 3)).astype(np.float32)
            out += np.roll(colours, (y, x), (0, 1)) @ weights
    return out


def grey(image: Image.Image) -> Image.Image:
    plain = image.convert("L").convert("RGB")
    plain.putalpha(image.getchannel("A"))
    return plain


def mean_colour(image: Image.Image) -> np.ndarray:
    """float32 [3] of what is visible, 0 to 255."""
    pixels = np.asarray(image, np.float32)
    return np.average(pixels[..., :3], axis=(0, 1), weights=pixels[..., 3])


def colour_of(image: Image.Image) -> str | None:
    """The one of COLOURS that about half of a drawing or more is in as it stands, and little of it in another; or None.
    Black, grey and white are none of them."""
    small = image.resize((32, 32), Image.Resampling.BOX)
    hue, saturation, value = np.asarray(small.convert("RGB").convert("HSV"), np.float32)[
        np.asarray(small.getchannel("A")) > 127].T
    hue = hue * 360 / 255  # degrees
    names = np.array([*_HUES, "red"])[np.searchsorted([*_HUES.values()], hue, side="right")]
    names[(names == "red") & (saturation < 140) & (value > 190)] = "pink"
    names[np.isin(names, ("red", "orange")) & (hue > 10) & (hue < 45) & (value < 195)] = "brown"
    coloured = names[(saturation > 50) & (value > 50)]
    found, counts = np.unique(coloured, return_counts=True)
    if not len(coloured) or counts.max() < max(0.45 * len(hue), 0.7 * len(coloured)):
        return None
    return str(found[counts.argmax()])


def upright(drawings: Drawings, styles: tuple[str, ...], side: int) -> Iterator[tuple[str, Thing, str, Image.Image]]:
    """Style, thing, icon and RGB [side, side] of every drawing in these styles as it is, in the middle of white, which
    its longer side fills."""
    for style, thing, icon in ((s, t, i) for s in styles for t in THINGS.values() for i in t.icons):
        page, image = Image.new("RGB", (SIDE, SIDE), "white"), drawings.draw(style, icon)
        page.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2), image)
        yield style, thing, icon, page.resize((side, side), Image.Resampling.BOX)


def nearest(drawings: Drawings, side: int = 32, coloured: bool = True) -> float:
    """A baseline without learning: how many drawings of the unseen style lie nearest, pixel by pixel on white, to a
    drawing of the same thing in the trained styles. A share of 1."""
    known, names = _canonical(drawings, STYLES, side, coloured)
    asked, answers = _canonical(drawings, (UNSEEN,), side, coloured)
    distances = (known**2).sum(1) - 2 * asked @ known.T  # [asked, known], less what is the same in a row
    return float(np.mean([names[i] == answer for i, answer in zip(distances.argmin(1), answers, strict=True)]))


def _canonical(drawings: Drawings, styles: tuple[str, ...], side: int, coloured: bool) -> tuple[np.ndarray, list[str]]:
    """float32 [n, side * side (* 3)] of every drawing in these styles, as `upright` has it, and names."""
    pixels, names = [], []
    for _, thing, _, page in upright(drawings, styles, side):
        pixels.append(np.asarray(page.convert("RGB" if coloured else "L"), np.float32).ravel() / 255)
        names.append(thing.name)
    return np.stack(pixels), names


def _read(folder: Path, style: str) -> dict:
    for path in sorted(folder.glob(f"*{style}*/**/icons.json")):
        icons = json.loads(path.read_text())
        if icons.get("prefix") == style:
            return icons
    raise OmniError(f"{folder}: has no icons.json of @iconify-json/{style}; unpack that package there")


def _render(svg: str, side: int) -> Image.Image:
    try:
        import resvg_py
    except ImportError:
        raise OmniError("drawings need resvg_py; pip install resvg_py") from None
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)))).convert("RGBA")
