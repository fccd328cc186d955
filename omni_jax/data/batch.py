"""Prompts of several requests as one batch of few, static shapes: padded tokens, blocks of sound, bins of pictures."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.audio import audio_tokens
from omni_jax.data.buckets import bucket, power_of_two, token_bucket
from omni_jax.data.windows import window_bins
from omni_jax.errors import OmniError

AUDIO_BLOCKS = 64  # blocks of sound (2 s each) that one call of the audio tower takes at most
MEDIA_STEPS = 8  # padded sizes of media an octave: up to 16 blocks of sound, or bins of a frame, are never padded
VISION_PATCHES = 16_384  # patches that one call of the vision tower takes, unless one frame pair alone has more


@dataclasses.dataclass(frozen=True)
class AudioClip:
    """One sound. `mel`: float32 [frames, M]; `positions`: int32 [tokens], where its tokens stand in the prompt."""

    mel: np.ndarray
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture or video. `patches`: uint8 [F, rows * cols, merge * merge, patch values]; `grid`: (F, rows, cols) in
    merged cells; `positions`: int32 [F * rows * cols], where its tokens stand in the prompt, in raster order of
    (frame pair, row, column); `seconds_per_grid`: seconds between frame pairs, 0.0 for a still picture."""

    patches: np.ndarray
    grid: tuple[int, int, int]
    positions: np.ndarray
    seconds_per_grid: float


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """What went in, for people. `kind`: image, audio or video (a video's sound track is an audio of its own);
    `frames`: of the video, or of mel; `size`: (height, width) after resizing; both, `seconds` and `sampled_fps` are 0
    where they have no meaning; `tokens`: how many the model reads for it, without the marks around it."""

    kind: str
    name: str
    seconds: float
    frames: int
    sampled_fps: float
    size: tuple[int, int]
    tokens: int


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One request. `token_ids`: int32 [T]; clips and pictures in the order of their start tokens."""

    token_ids: np.ndarray
    clips: tuple[AudioClip, ...]
    pictures: tuple[Picture, ...]
    media: tuple[MediaInfo, ...]


class AudioBlocks(NamedTuple):
    """One call of the audio tower. `mel`: float32 [N, 2 * n_window, M]; `frames`: int32 [N], the valid ones (0 for a
    padding block); `destination`: int32 [N, n_window // 2], see Batch."""

    mel: np.ndarray
    frames: np.ndarray
    destination: np.ndarray


class VisionWindows(NamedTuple):
    """One call of the vision tower. `pixels`: uint8 [F, W, C, merge * merge, patch values]: F frame pairs, W bins of C
    cells; `cells`: int32 [F, W, C, 3] = (row, column, window id), -1 for padding; `destination`: int32 [F, W, C]."""

    pixels: np.ndarray
    cells: np.ndarray
    destination: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """B prompts padded on the right to T tokens.

    `token_ids`: int32 [B, T]; `lengths`: int32 [B]; `vision_grid`: int32 [B, I, 3] = (F, rows, cols) of each row's
    pictures in order, zeros after the last; `seconds_per_grid`: float32 [B, I]. Every `destination` is the flat
    index b * T + t of the token that a tower's output replaces, or B * T, out of range, for padding: to be dropped.
    """

    token_ids: np.ndarray
    lengths: np.ndarray
    vision_grid: np.ndarray
    seconds_per_grid: np.ndarray
    audio: tuple[AudioBlocks, ...]
    vision: tuple[VisionWindows, ...]


def collate(prompts: Sequence[Prompt], config: OmniConfig, max_patches: int = VISION_PATCHES,
            max_blocks: int = AUDIO_BLOCKS, devices: int = 1) -> Batch:
    """Pads prompts to buckets and groups their media into calls of the towers, which `devices` of a mesh share.
    Raises OmniError if there is no prompt."""
    if not prompts:
        raise OmniError("batch: holds no prompt; give at least one conversation")
    lengths = np.array([len(prompt.token_ids) for prompt in prompts], np.int32)
    width = token_bucket(int(lengths.max()))
    token_ids = np.full((len(prompts), width), config.thinker_config.pad_token_id, np.int32)
    for row, prompt in zip(token_ids, prompts, strict=True):
        row[: len(prompt.token_ids)] = prompt.token_ids
    grid, seconds = _grids(prompts)
    return Batch(token_ids, lengths, grid, seconds, _audio_groups(prompts, config, width, max_blocks, devices),
                 _vision_groups(prompts, config, width, max_patches, devices))


def _grids(prompts: Sequence[Prompt]) -> tuple[np.ndarray, np.ndarray]:
    most = bucket(max(len(prompt.pictures) for prompt in prompts))
    grid = np.zeros((len(prompts), most, 3), np.int32)
    seconds = np.zeros((len(prompts), most), np.float32)
    for b, prompt in enumerate(prompts):
        for i, picture in enumerate(prompt.pictures):
            grid[b, i], seconds[b, i] = picture.grid, picture.seconds_per_grid
    return grid, seconds


def _audio_groups(prompts: Sequence[Prompt], config: OmniConfig, width: int, most: int,
                  devices: int) -> tuple[AudioBlocks, ...]:
    """Clips cut into blocks, which the audio tower treats one by one; a rest too short for a token is left out."""
    length = 2 * config.thinker_config.audio_config.n_window
    blocks = []  # (mel [frames, M], destinations [tokens])
    for b, prompt in enumerate(prompts):
        for clip in prompt.clips:
            for block, first in enumerate(range(0, len(clip.mel), length)):
                mel = clip.mel[first : first + length]
                if tokens := audio_tokens(len(mel)):
                    start = block * (length // 4)
                    blocks.append((mel, b * width + clip.positions[start : start + tokens]))
    nowhere = len(prompts) * width
    return tuple(_audio_blocks(blocks[i : i + most], length, nowhere, devices) for i in range(0, len(blocks), most))


def _padded(n: int, devices: int) -> int:
    """How many blocks or frame pairs a call takes to hold `n`: on a mesh, as many as its devices can share."""
    n = bucket(n, steps=MEDIA_STEPS)
    return n + -n % min(devices, power_of_two(n))


def _audio_blocks(blocks: list[tuple[np.ndarray, np.ndarray]], length: int, nowhere: int, devices: int) -> AudioBlocks:
    n = _padded(len(blocks), devices)
    mel = np.zeros((n, length, blocks[0][0].shape[1]), np.float32)
    frames = np.zeros(n, np.int32)
    destination = np.full((n, length // 4), nowhere, np.int32)
    for i, (piece, positions) in enumerate(blocks):
        mel[i, : len(piece)], frames[i], destination[i, : len(positions)] = piece, len(piece), positions
    return AudioBlocks(mel, frames, destination)


def _vision_groups(prompts: Sequence[Prompt], config: OmniConfig, width: int, most: int,
                   devices: int) -> tuple[VisionWindows, ...]:
    """Frame pairs of all pictures, those with equally many (bucketed) bins stacked up to `most` patches a group."""
    vision = config.thinker_config.vision_config
    side, merge = vision.window_cells, vision.spatial_merge_size**2
    by_bins = defaultdict(list)  # bucketed W -> [(picture, frame pair, row of the batch)]
    for b, prompt in enumerate(prompts):
        for picture in prompt.pictures:
            bins = bucket(len(window_bins(*picture.grid[1:], side)), steps=MEDIA_STEPS)
            by_bins[bins] += [(picture, f, b) for f in range(picture.grid[0])]
    groups = []
    for bins, pairs in sorted(by_bins.items()):
        room = max(1, most // (bins * side**2 * merge))
        room = room if room == power_of_two(room) else power_of_two(room) // 2  # so that a full group needs no padding
        groups += [_vision_windows(pairs[i : i + room], bins, side, width, len(prompts) * width, devices)
                   for i in range(0, len(pairs), room)]
    return tuple(groups)


def _vision_windows(pairs: list[tuple[Picture, int, int]], bins: int, side: int, width: int,
                    nowhere: int, devices: int) -> VisionWindows:
    shape = (_padded(len(pairs), devices), bins, side**2)
    pixels = np.zeros((*shape, *pairs[0][0].patches.shape[2:]), np.uint8)
    cells = np.full((*shape, 3), -1, np.int32)
    destination = np.full(shape, nowhere, np.int32)
    for i, (picture, f, b) in enumerate(pairs):
        _, rows, cols = picture.grid
        layout = window_bins(rows, cols, side)
        bin_, slot = np.nonzero(layout[..., 2] >= 0)
        cell = layout[bin_, slot, 0] * cols + layout[bin_, slot, 1]
        pixels[i, bin_, slot] = picture.patches[f, cell]
        cells[i, : len(layout)] = layout
        destination[i, bin_, slot] = b * width + picture.positions[f * rows * cols + cell]
    return VisionWindows(pixels, cells, destination)
