"""A training batch: rows of one or several conversations, with all their media, in shapes that the config fixes."""

from typing import NamedTuple

import numpy as np

from omni_jax.data.batch import AudioBlocks, VisionWindows


class TrainBatch(NamedTuple):
    """B rows of T tokens; arrays only, a pytree. With a leading axis [A], the parts of one step.

    A destination is the flat index b * T + t of the token that a tower's output replaces, or B * T for padding.
    """

    token_ids: np.ndarray         # int32 [B, T]
    segments: np.ndarray          # int32 [B, T]: conversations of a row, from 1; 0 is padding
    weights: np.ndarray           # float32 [B, T]: of the loss at predicting token t from what stands before it
    vision_grid: np.ndarray       # int32 [B, I, 3]: see data.batch.Batch; those of a row's conversations in order
    seconds_per_grid: np.ndarray  # float32 [B, I]
    audio: tuple[AudioBlocks, ...]     # none, or one of MediaBudget.audio_blocks blocks
    vision: tuple[VisionWindows, ...]  # one for each of MediaBudget.frame_pairs
