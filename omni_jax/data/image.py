"""Pictures: to RGB, to a size of whole cells, and on to the vision tower's patches."""

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from omni_jax.data.sources import Source, resolve
from omni_jax.errors import OmniError

# Limits in cells (tokens) of qwen-omni-utils; a cell is factor x factor pixels.
MIN_CELLS, MAX_CELLS = 4, 16384
MAX_RATIO = 200
DEFAULT_FACTOR = 28


def smart_resize(height: int, width: int, factor: int = DEFAULT_FACTOR, min_pixels: float | None = None,
                 max_pixels: float | None = None, name: str = "picture") -> tuple[int, int]:
    """(height, width) in whole multiples of `factor`, with about the same ratio and min..max_pixels pixels in all.

    As qwen-omni-utils, which never goes below one factor a side: a 1x1 picture works. Raises OmniError if one side is
    more than 200 times the other, or if min_pixels exceeds max_pixels.
    """
    min_pixels = MIN_CELLS * factor**2 if min_pixels is None else min_pixels
    max_pixels = MAX_CELLS * factor**2 if max_pixels is None else max_pixels
    if min(height, width) < 1 or max(height, width) / min(height, width) > MAX_RATIO:
        raise OmniError(f"{name}: {width}x{height} pixels; no side may be over {MAX_RATIO} times the other, crop it")
    if min_pixels > max_pixels:
        raise OmniError(f"{name}: min_pixels {min_pixels:g} exceeds max_pixels {max_pixels:g}; change one of them")
    rows, cols = max(1, round(height / factor)), max(1, round(width / factor))
    if rows * cols * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, cols = max(1, math.floor(height / shrink / factor)), max(1, math.floor(width / shrink / factor))
    elif rows * cols * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, cols = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, cols * factor


def number(item: Mapping[str, Any], key: str, name: str, default: Any = None, minimum: float = 1) -> Any:
    """The item's number under `key`, or `default`. Raises OmniError if it is none or below `minimum`."""
    value = item.get(key, default)
    if value is default:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not minimum <= value < math.inf:
        raise OmniError(f"{name}: {key} must be a number of at least {minimum:g}, not {value!r}")
    return value


def wanted_size(item: Mapping[str, Any], name: str, factor: int) -> tuple[int, int] | None:
    """(height, width) from the item's resized_height and resized_width, rounded to whole cells; None without them."""
    height, width = (number(item, key, name) for key in ("resized_height", "resized_width"))
    if height is None or width is None:
        return None
    return smart_resize(height, width, factor, name=name)


def image_size(height: int, width: int, item: Mapping[str, Any], name: str, factor: int) -> tuple[int, int]:
    """(height, width) that a picture is resized to, after the item's settings. Raises OmniError."""
    limits = number(item, "min_pixels", name), number(item, "max_pixels", name)
    return wanted_size(item, name, factor) or smart_resize(height, width, factor, *limits, name=name)


def load_image(source: Any, item: Mapping[str, Any] | None = None, factor: int = DEFAULT_FACTOR,
               where: str = "image") -> np.ndarray:
    """uint8 [H, W, 3] of a file (path, URL-like string, bytes), a uint8 array [H, W], [H, W, 3 or 4] or a PIL image.

    H and W are multiples of `factor`, chosen by `smart_resize` and the item's min_pixels, max_pixels, resized_height
    and resized_width; PIL's bicubic resizes. Transparency goes on white. As in the reference the EXIF orientation is
    not applied. Raises OmniError.
    """
    picture, name = open_image(source, where)
    height, width = image_size(picture.height, picture.width, item or {}, name, factor)
    return resize(to_rgb(picture, name), height, width)


def open_image(source: Any, where: str) -> tuple[Image.Image, str]:
    """The picture, its header read but not decoded, and its name. Raises OmniError."""
    file = resolve(source, where)
    if file is not None:
        return _open_file(file), file.name
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise OmniError(f"{where}: the picture has no pixels; give one with at least 1x1")
        return source, where
    pixels = np.asarray(source) if hasattr(source, "__array__") else None
    if pixels is None:
        raise OmniError(f"{where}: a picture must be a path, bytes, a uint8 array or a PIL image, "
                        f"not a {type(source).__name__}")
    known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not known or pixels.size == 0:
        raise OmniError(f"{where}: a picture of type {pixels.dtype} and shape {list(pixels.shape)} is not uint8 "
                        "[H, W] or [H, W, 3 or 4] with at least one pixel")
    return Image.fromarray(np.ascontiguousarray(pixels)), where


def _open_file(file: Source) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error all the same
            return Image.open(io.BytesIO(file.data) if file.path is None else file.path)
    except UnidentifiedImageError:
        raise OmniError(f"{file.name}: cannot be read as a picture; the file is corrupt or of another type") from None
    except Image.DecompressionBombError:
        raise OmniError(f"{file.name}: the picture has too many pixels to decode safely; make it smaller") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise OmniError(f"{file.name}: the picture cannot be read ({error}); save it again") from None


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """The decoded picture in mode RGB: transparency on white, 16-bit gray scaled (PIL would clip it to white)."""
    try:
        picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OmniError(f"{name}: the picture is corrupt or truncated ({error}); save it again") from None
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def resize(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] by PIL's bicubic, as the reference resizes."""
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def frame_pairs(frames: np.ndarray, patch: int = 14, merge: int = 2, temporal: int = 2) -> np.ndarray:
    """Patches in the reference's order: uint8 [F, rows * cols, merge * merge, 3 * temporal * patch * patch].

    `frames`: uint8 [n, H, W, 3], H and W multiples of patch * merge; rows and cols count merged cells in raster order.
    The last frame is repeated if n is no multiple of `temporal`; so a still image [1, H, W, 3] is two equal frames.
    """
    n, height, width, channels = frames.shape
    if n % temporal:
        frames = np.concatenate([frames, np.repeat(frames[-1:], temporal - n % temporal, axis=0)])
    rows, cols = height // (patch * merge), width // (patch * merge)
    split = frames.reshape(-1, temporal, rows, merge, patch, cols, merge, patch, channels)
    #       0 F, 1 temporal, 2 rows, 3 merge, 4 patch, 5 cols, 6 merge, 7 patch, 8 channels
    ordered = split.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(-1, rows * cols, merge * merge, channels * temporal * patch * patch)
