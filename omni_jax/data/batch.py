"""Prompts of several requests as one batch of few, static shapes: padded tokens, blocks of sound, bins of pictures."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


@dataclasses.dataclass(frozen=True)
class Turn:
    """A turn of the assistant's. `start`: where its text begins in the prompt; `end`: where its end mark stands;
    `sound`: the item of its sound, None if it has none."""

    start: int
    end: int
    sound: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Example:
    """One conversation to learn from. `learn`: bool [T], which tokens of the prompt the model is to write."""

    prompt: Prompt
    learn: np.ndarray
    turns: tuple[Turn, ...] = ()


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
    token_ids = pad_rows([prompt.token_ids for prompt in prompts], width, config.thinker_config.pad_token_id)
    grid, seconds = picture_grids(prompts, bucket(max(len(prompt.pictures) for prompt in prompts)))
    return Batch(token_ids, lengths, grid, seconds, _audio_groups(prompts, config, width, max_blocks, devices),
                 _vision_groups(prompts, config, width, max_patches, devices))


def pad_rows(rows: Sequence[np.ndarray], width: int, padding: int) -> np.ndarray:
    """int32 [B, width]: rows padded on the right."""
    padded = np.full((len(rows), width), padding, np.int32)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded


def picture_grids(prompts: Sequence[Prompt], most: int) -> tuple[np.ndarray, np.ndarray]:
    """`vision_grid` [B, most, 3] and `seconds_per_grid` [B, most] of a batch."""
    grid = np.zeros((len(prompts), most, 3), np.int32)
    seconds = np.zeros((len(prompts), most), np.float32)
    for b, prompt in enumerate(prompts):
        for i, picture in enumerate(prompt.pictures):
            grid[b, i], seconds[b, i] = picture.grid, picture.seconds_per_grid
    return grid, seconds


def clip_blocks(clip: AudioClip, config: OmniConfig) -> list[AudioClip]:
    """A clip cut into blocks, which the audio tower treats one by one; a rest too short for a token is left out."""
    length = 2 * config.thinker_config.audio_config.n_window
    blocks = []
    for block, first in enumerate(range(0, len(clip.mel), length)):
        mel = clip.mel[first : first + length]
        if tokens := audio_tokens(len(mel)):
            start = block * (length // 4)
            blocks.append(AudioClip(mel, clip.positions[start : start + tokens]))
    return blocks


def audio_pieces(prompts: Sequence[Prompt], config: OmniConfig, width: int) -> list[AudioClip]:
    """The blocks of all clips; positions are those in the flat batch of rows of `width` tokens."""
    return [AudioClip(block.mel, b * width + block.positions) for b, prompt in enumerate(prompts)
            for clip in prompt.clips for block in clip_blocks(clip, config)]


def audio_blocks(pieces: Sequence[AudioClip], n: int, nowhere: int, config: OmniConfig) -> AudioBlocks:
    """Blocks as one call of the audio tower, padded to `n`; `nowhere` is the destination of padding."""
    length = 2 * config.thinker_config.audio_config.n_window
    mel = np.zeros((n, length, config.thinker_config.audio_config.num_mel_bins), np.float32)
    frames = np.zeros(n, np.int32)
    destination = np.full((n, length // 4), nowhere, np.int32)
    for i, piece in enumerate(pieces):
        mel[i, : len(piece.mel)], frames[i] = piece.mel, len(piece.mel)
        destination[i, : len(piece.positions)] = piece.positions
    return AudioBlocks(mel, frames, destination)


def _audio_groups(prompts: Sequence[Prompt], config: OmniConfig, width: int, most: int,
                  devices: int) -> tuple[AudioBlocks, ...]:
    pieces = audio_pieces(prompts, config, width)
    groups = [pieces[i : i + most] for i in range(0, len(pieces), most)]
    return tuple(audio_blocks(group, _padded(len(group), devices), len(prompts) * width, config) for group in groups)


def _padded(n: int, devices: int) -> int:
    """How many blocks or frame pairs a call takes to hold `n`: on a mesh, as many as its devices can share."""
    n = bucket(n, steps=MEDIA_STEPS)
    return n + -n % min(devices, power_of_two(n))


class FramePair(NamedTuple):
    """Frame pair `index` of a picture whose prompt is row `row` of a batch."""

    picture: Picture
    index: int
    row: int


def frame_bins(picture: Picture, config: OmniConfig) -> int:
    """How many bins each frame pair of a picture takes."""
    return len(window_bins(*picture.grid[1:], config.thinker_config.vision_config.window_cells))


def pairs_by_bins(prompts: Sequence[Prompt], config: OmniConfig,
                  padded: Callable[[int], int]) -> dict[int, list[FramePair]]:
    """The frame pairs of all pictures by how many bins they are padded to."""
    pairs = defaultdict(list)
    for b, prompt in enumerate(prompts):
        for picture in prompt.pictures:
            pairs[padded(frame_bins(picture, config))] += [FramePair(picture, f, b) for f in range(picture.grid[0])]
    return pairs


def vision_windows(pairs: Sequence[FramePair], n: int, bins: int, width: int, nowhere: int,
                   config: OmniConfig) -> VisionWindows:
    """Frame pairs as one call of the vision tower, padded to `n` of `bins` bins; rows of the batch have `width`
    tokens, `nowhere` is the destination of padding."""
    vision = config.thinker_config.vision_config
    side = vision.window_cells
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = np.zeros((n, bins, side**2, vision.spatial_merge_size**2, values), np.uint8)
    cells = np.full((n, bins, side**2, 3), -1, np.int32)
    destination = np.full((n, bins, side**2), nowhere, np.int32)
    for i, (picture, f, b) in enumerate(pairs):
        _, rows, cols = picture.grid
        layout = window_bins(rows, cols, side)
        bin_, slot = np.nonzero(layout[..., 2] >= 0)
        cell = layout[bin_, slot, 0] * cols + layout[bin_, slot, 1]
        pixels[i, bin_, slot] = picture.patches[f, cell]
        cells[i, : len(layout)] = layout
        destination[i, bin_, slot] = b * width + picture.positions[f * rows * cols + cell]
    return VisionWindows(pixels, cells, destination)


def _vision_groups(prompts: Sequence[Prompt], config: OmniConfig, width: int, most: int,
                   devices: int) -> tuple[VisionWindows, ...]:
    """Frame pairs of all pictures, those with equally many (bucketed) bins stacked up to `most` patches a group."""
    vision = config.thinker_config.vision_config
    by_bins = pairs_by_bins(prompts, config, lambda bins: bucket(bins, steps=MEDIA_STEPS))
    groups = []
    for bins, pairs in sorted(by_bins.items()):
        room = max(1, most // (bins * vision.window_cells**2 * vision.spatial_merge_size**2))
        room = room if room == power_of_two(room) else power_of_two(room) // 2  # so that a full group needs no padding
        calls = [pairs[i : i + room] for i in range(0, len(pairs), room)]
        groups += [vision_windows(call, _padded(len(call), devices), bins, width, len(prompts) * width, config)
                   for call in calls]
    return tuple(groups)
