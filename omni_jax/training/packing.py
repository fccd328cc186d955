"""Which examples share a row and a batch, and rows of examples as a `TrainBatch` of fixed shapes.

Pure functions. What an example takes is counted as a cost: an int array [tokens, pictures, blocks of sound, frame pairs
of each class]. Tokens and pictures are limited in each row, the others in the micro-batch.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.batch import (
    Example,
    Prompt,
    audio_blocks,
    audio_pieces,
    clip_blocks,
    frame_bins,
    pad_rows,
    pairs_by_bins,
    picture_grids,
    vision_windows,
)
from omni_jax.errors import require
from omni_jax.training.batch import TrainBatch
from omni_jax.training.config import DataConfig, MediaBudget

PER_ROW = 2  # of a cost's numbers: tokens and pictures


class Read(NamedTuple):
    """An example (of some form: see forms.py), what it takes of a batch's room, and its tokens, all and learnt."""

    example: Any
    cost: np.ndarray
    tokens: int
    learnt: int


def budget(data: DataConfig) -> np.ndarray:
    """What an empty micro-batch has room for: tokens and pictures of a row, and the rest."""
    media = data.media
    return np.array([data.length, media.pictures, media.audio_blocks, *(pairs for _, pairs in media.frame_pairs)])


def cost(prompt: Prompt, config: OmniConfig, data: DataConfig) -> np.ndarray:
    """What a prompt takes. Raises OmniError, saying which number to raise, if no micro-batch has room for it."""
    media, classes = data.media, [bins for bins, _ in data.media.frame_pairs]
    pairs = dict.fromkeys(classes, 0)
    for picture in prompt.pictures:
        bins = frame_bins(picture, config)
        require(bins <= max(classes, default=0), "media", f"a frame of {bins} bins is larger than any of "
                f"data.media.frame_pairs {media.frame_pairs}; add a class for it or lower max_pixels")
        pairs[_class(bins, media)] += picture.grid[0]
    blocks = sum(len(clip_blocks(clip, config)) for clip in prompt.clips)
    taken = np.array([len(prompt.token_ids), len(prompt.pictures), blocks, *pairs.values()])
    names = ["tokens (data.length", "pictures (data.media.pictures", "blocks of sound (data.media.audio_blocks",
             *(f"frame pairs of up to {bins} bins (data.media.frame_pairs" for bins in classes)]
    for name, n, room in zip(names, taken, budget(data), strict=True):
        require(n <= room, "media", f"takes {n:,} {name} is {room:,}); raise that number or shorten it")
    return taken


def choose(costs: np.ndarray, room: np.ndarray, scores: np.ndarray, most: int) -> tuple[list[int], np.ndarray]:
    """The examples (costs [P, …]) that fill one row: always the one with the highest score that fits, the first of
    equals, up to `most`. Returns their indices and the room [...] that is left."""
    chosen, free = [], np.ones(len(costs), bool)
    while len(chosen) < most and (fits := free & (costs <= room).all(axis=1)).any():
        i = int(np.argmax(np.where(fits, scores, -np.inf)))
        chosen.append(i)
        free[i], room = False, room - costs[i]
    return chosen, room


def scores(tokens: np.ndarray, alike: int | None) -> np.ndarray:
    """Which of the waiting examples (tokens [P], the oldest first) to take: the oldest, so that none waits for ever,
    then the longest; or those whose length is nearest to `alike`."""
    if alike is not None:
        return -np.abs(tokens - alike).astype(float)
    return np.where(np.arange(len(tokens)) == 0, np.inf, tokens)


def join(prompts: Sequence[Prompt]) -> Prompt:
    """Several prompts as one, one after the other."""
    starts = np.cumsum([0, *(len(prompt.token_ids) for prompt in prompts)], dtype=np.int32)
    moved = lambda media, start: dataclasses.replace(media, positions=media.positions + start)
    pairs = list(zip(prompts, starts, strict=False))
    return Prompt(np.concatenate([np.zeros(0, np.int32), *(prompt.token_ids for prompt in prompts)]),
                  tuple(moved(clip, start) for prompt, start in pairs for clip in prompt.clips),
                  tuple(moved(picture, start) for prompt, start in pairs for picture in prompt.pictures),
                  tuple(info for prompt in prompts for info in prompt.media))


def to_batch(rows: Sequence[Sequence[Example]], length: int, config: OmniConfig, media: MediaBudget) -> TrainBatch:
    """Rows of examples, which must fit, as arrays of `length` tokens and the media budget's shapes."""
    prompts = [join([example.prompt for example in row]) for row in rows]
    nowhere = len(rows) * length
    grid, seconds = picture_grids(prompts, max(1, media.pictures))  # the builder of positions looks one up
    pieces = audio_pieces(prompts, config, length)
    pairs = pairs_by_bins(prompts, config, lambda bins: _class(bins, media))
    return TrainBatch(
        token_ids=pad_rows([prompt.token_ids for prompt in prompts], length, config.thinker_config.pad_token_id),
        segments=pad_rows([_segments(row) for row in rows], length, 0),
        weights=pad_rows([_learn(row) for row in rows], length, 0).astype(np.float32),
        vision_grid=grid, seconds_per_grid=seconds,
        audio=(audio_blocks(pieces, media.audio_blocks, nowhere, config),) if media.audio_blocks else (),
        vision=tuple(vision_windows(pairs.get(bins, ()), n, bins, length, nowhere, config)
                     for bins, n in media.frame_pairs))


def _class(bins: int, media: MediaBudget) -> int:
    return min(b for b, _ in media.frame_pairs if b >= bins)


def _segments(row: Sequence[Example]) -> np.ndarray:
    return np.repeat(np.arange(1, len(row) + 1), np.array([len(example.learn) for example in row], int))


def _learn(row: Sequence[Example]) -> np.ndarray:
    return np.concatenate([np.zeros(0, bool), *(example.learn for example in row)])
