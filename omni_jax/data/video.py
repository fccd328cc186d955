"""Videos: which frames are taken, their true rate, and decoding them one at a time.

Sampling and sizes follow qwen-omni-utils; frames are counted from the file itself, not believed from its header.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from omni_jax.data.audio import time_range
from omni_jax.data.image import (
    DEFAULT_FACTOR,
    image_size,
    number,
    open_image,
    resize,
    smart_resize,
    to_rgb,
    wanted_size,
)
from omni_jax.data.sources import Source, check_whole, decode_stream, is_still, open_container, resolve
from omni_jax.errors import OmniError

# Numbers of qwen-omni-utils; cells are factor x factor pixels.
DEFAULT_FPS = 2.0
FRAME_FACTOR = 2  # an even number of frames
MIN_FRAMES, MAX_FRAMES = 4, 768
MIN_CELLS, MAX_CELLS = 128, 768  # per frame
TOTAL_CELLS = 0.9 * 128_000  # per video; a token is a cell of two frames
HIDDEN_FRAME_CODECS = ("vp8",)  # packets that show nothing: only decoding tells the number of frames
LOST_FRAMES = 2  # at the end of a file that breaks off; then the last good frame stands in


@dataclasses.dataclass(frozen=True)
class VideoPlan:
    """What will be taken from a video, known without decoding its frames.

    `indices`: int [n] frame numbers in ascending order; `total`: frames in the chosen stretch; `fps`: its true rate;
    `sampled_fps` = n / total * fps; `size`: (height, width) after resizing; `has_sound`: whether it has a sound track.
    `source` is the file, or the list of frames.
    """

    name: str
    source: Source | Sequence[Any]
    indices: np.ndarray
    total: int
    fps: float
    sampled_fps: float
    size: tuple[int, int]
    has_sound: bool

    @property
    def seconds(self) -> float:
        return self.total / self.fps


def load_video(source: Any, item: Mapping[str, Any] | None = None, factor: int = DEFAULT_FACTOR,
               where: str = "video") -> tuple[np.ndarray, VideoPlan]:
    """(uint8 [n, H, W, 3], plan) of a file (path, URL-like string, bytes) or of a list of frames. Raises OmniError.

    `item` may hold fps or nframes, min_frames, max_frames, video_start, video_end (seconds), min_pixels, max_pixels,
    total_pixels, resized_height and resized_width. Rotation marks in the file are ignored, as in the reference.
    """
    plan = plan_video(source, item or {}, factor, where)
    frames = np.empty((len(plan.indices), *plan.size, 3), np.uint8)
    for i, frame in enumerate(read_frames(plan)):
        frames[i] = frame
    return frames, plan


def plan_video(source: Any, item: Mapping[str, Any], factor: int = DEFAULT_FACTOR, where: str = "video") -> VideoPlan:
    """The frames to take and their size, from headers and packets alone. Raises OmniError."""
    if "fps" in item and "nframes" in item:
        raise OmniError(f"{where}: fps and nframes are both given; give only one of them")
    file = resolve(source, where)
    if file is None:
        return _plan_list(source, item, factor, where)
    frames, fps, height, width, has_sound = _survey(file)
    start, end = frame_range(item, frames, fps, file.name)
    total = end - start + 1
    n = smart_nframes(item, total, fps, file.name)
    size = frame_size(item, n, height, width, factor, file.name)
    return VideoPlan(file.name, file, linspace(start, end, n), total, fps, n / total * fps, size, has_sound)


def smart_nframes(item: Mapping[str, Any], total: int, fps: float, name: str) -> int:
    """How many of `total` frames at `fps` are taken: an even number, after the item's fields. Raises OmniError."""
    if number(item, "nframes", name) is not None:
        n = round(item["nframes"] / FRAME_FACTOR) * FRAME_FACTOR
    else:
        fewest = math.ceil(number(item, "min_frames", name, MIN_FRAMES) / FRAME_FACTOR) * FRAME_FACTOR
        most = number(item, "max_frames", name, min(MAX_FRAMES, total)) // FRAME_FACTOR * FRAME_FACTOR
        wanted = total / fps * number(item, "fps", name, DEFAULT_FPS, minimum=1e-6)
        n = int(min(max(wanted, fewest), most, total) // FRAME_FACTOR * FRAME_FACTOR)
    if total < FRAME_FACTOR:
        raise OmniError(f"{name}: has {total} frame in the chosen stretch; a video needs at least {FRAME_FACTOR}")
    if not FRAME_FACTOR <= n <= total:
        raise OmniError(f"{name}: {n} frames are asked for, but it has {total}; ask for {FRAME_FACTOR} to {total}")
    return n


def frame_range(item: Mapping[str, Any], frames: int, fps: float, name: str) -> tuple[int, int]:
    """First and last frame of the stretch between the item's video_start and video_end. Raises OmniError."""
    start, end = time_range(item, "video_start", "video_end", name)
    duration = frames / fps
    first = math.ceil(min(start, duration) * fps)
    last = frames - 1 if end is None else min(math.floor(min(end, duration) * fps), frames - 1)
    if first >= last and (start > 0 or end is not None):
        raise OmniError(f"{name}: video_start {start:g} to video_end {duration if end is None else end:g} holds fewer "
                        f"than two of its frames; choose a longer stretch of its {duration:.2f} s")
    return first, last


def frame_size(item: Mapping[str, Any], n: int, height: int, width: int, factor: int, name: str) -> tuple[int, int]:
    """(height, width) of each of `n` frames: per-frame limits, and the limit of the whole video shared out."""
    fixed = wanted_size(item, name, factor)
    if fixed is not None:
        return fixed
    fewest = number(item, "min_pixels", name, MIN_CELLS * factor**2)
    total = number(item, "total_pixels", name, TOTAL_CELLS * factor**2)
    most = max(min(MAX_CELLS * factor**2, total / n * FRAME_FACTOR), int(fewest * 1.05))
    most = min(number(item, "max_pixels", name, most), most)
    return smart_resize(height, width, factor, fewest, most, name)


def linspace(start: int, end: int, n: int) -> np.ndarray:
    """int64 [n]: torch.linspace(start, end, n).round(), whose float32 steps choose another frame in one file of three
    than float64 would: from both ends towards the middle, each sum rounded once."""
    step = float(np.float32(np.float32(end - start) / np.float32(n - 1)))
    index = np.arange(n)
    values = np.where(index < n // 2, start + step * index, end - step * (n - 1 - index))
    return np.rint(values.astype(np.float32)).astype(np.int64)


def read_frames(plan: VideoPlan) -> Iterator[np.ndarray]:
    """Each planned frame, uint8 [H, W, 3], resized as soon as it is decoded. Raises OmniError."""
    if isinstance(plan.source, Source):
        yield from _decode(plan)
        return
    for i in plan.indices:
        picture, name = open_image(plan.source[i], f"{plan.name}, frame {i}")
        yield resize(to_rgb(picture, name), *plan.size)


def _plan_list(source: Any, item: Mapping[str, Any], factor: int, where: str) -> VideoPlan:
    """A list of frames: all are taken, each with the limits of a picture; an odd count repeats the last."""
    is_array = isinstance(source, np.ndarray) and source.ndim == 4
    if not is_array and (isinstance(source, Mapping) or not isinstance(source, Sequence)):
        raise OmniError(f"{where}: a video must be a path, bytes or a list of frames, not a {type(source).__name__}")
    if len(source) < FRAME_FACTOR:
        raise OmniError(f"{where}: has {len(source)} frames; a video needs at least {FRAME_FACTOR}")
    sizes = {}
    for i, frame in enumerate(source):
        picture, name = open_image(frame, f"{where}, frame {i}")
        sizes[image_size(picture.height, picture.width, item, name, factor)] = i
    if len(sizes) > 1:
        raise OmniError(f"{where}: frames {sorted(sizes.values())} differ in size; give all frames one size")
    fps = float(number(item, "fps", where, DEFAULT_FPS, minimum=1e-6))
    indices = np.minimum(np.arange(len(source) + len(source) % FRAME_FACTOR), len(source) - 1)
    return VideoPlan(where, source, indices, len(indices), fps, fps, next(iter(sizes)), False)


def _survey(file: Source) -> tuple[int, float, int, int, bool]:
    """(frames, true fps, height, width, has sound) of a file, by reading its packets. Raises OmniError."""
    with open_container(file, "a video") as container:
        stream = container.streams.best("video")  # not the cover of an album
        if stream is None:
            hint = "only sound; give it as audio" if container.streams.audio else "so it is no video"
            raise OmniError(f"{file.name}: has no pictures, {hint}")
        if is_still(container):
            raise OmniError(f"{file.name}: is a picture or text, not a video; give it as what it is")
        check_whole(container, stream, file.name)
        times = _frame_times(container, stream, file.name)
        height, width = stream.codec_context.height, stream.codec_context.width
        if not times or not height or not width:
            raise OmniError(f"{file.name}: holds no frames; the file is corrupt or empty")
        return len(times), _true_fps(stream, times, file.name), height, width, bool(container.streams.audio)


def _frame_times(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> list[int | None]:
    """The time stamp of each frame shown: of its packet, or of the decoded frame where packets may show nothing."""
    if stream.codec_context.name.startswith(HIDDEN_FRAME_CODECS):
        return [frame.pts for frame in decode_stream(container, stream, name)]
    try:
        return [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    except av.error.FFmpegError as error:
        raise OmniError(f"{name}: the video is corrupt ({error.strerror}); convert the file again") from None


def _true_fps(stream: av.VideoStream, times: list[int | None], name: str) -> float:
    """The mean rate: the header's exact fraction where the time stamps bear it out, else counted from them."""
    stated = float(stream.average_rate or stream.guessed_rate or 0)
    known = [t for t in times if t is not None]
    span = float((max(known) - min(known)) * stream.time_base) if len(known) == len(times) > 1 else 0.0
    counted = (len(times) - 1) / span if span > 0 else 0.0
    # Half a frame over the whole length: what rounded time stamps may err by.
    if stated and (not counted or abs(span * stated - (len(times) - 1)) <= 0.5):
        return stated
    if not counted:
        raise OmniError(f"{name}: does not say how long its frames last; convert it to MP4")
    return counted


def _decode(plan: VideoPlan) -> Iterator[np.ndarray]:
    wanted = plan.indices.tolist()
    decoded, last = 0, None
    reformatter = VideoReformatter()  # one for all frames: each sets up its own threads
    with open_container(plan.source, "a video") as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        for frame in decode_stream(container, stream, plan.name):
            if decoded == wanted[0]:
                frame = reformatter.reformat(frame, format="rgb24")
                last = resize(Image.fromarray(frame.to_ndarray()), *plan.size)
                yield last
                wanted.pop(0)
            if not wanted:
                return
            decoded += 1
    if last is None or wanted[-1] - decoded >= LOST_FRAMES:
        raise OmniError(f"{plan.name}: breaks off after {decoded} frames; convert the file again")
    yield from [last] * len(wanted)
