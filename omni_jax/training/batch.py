"""A training batch: rows of one or several conversations, with all their media,
or of clips of speech; in shapes that the config fixes."""

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


class ClipBatch(NamedTuple):
    """B clips of n blocks (n * T mel frames, T = block_size) at the vocoder's rate; arrays only, a pytree. With a
    leading axis [A], the parts of one step.

    Both sounds carry MelConfig.pad real neighbouring samples on each side (the clip's reflection at its ends), so that
    mels need no padding. A row's randomness depends on its seed alone, so that splitting, accumulating and resuming
    change nothing.
    """

    wave: np.ndarray       # float32 [B, n * T * samples of a frame + 2 * pad]
    frames: np.ndarray     # int32 [B]: mel frames that exist; later ones are padding
    codes: np.ndarray      # int32 [B, n, codes of a block]; -1 where none are given
    vector: np.ndarray     # float32 [B, enc_emb_dim]: the speaker vector of a named voice
    named: np.ndarray      # bool [B]: where `vector` is given
    reference: np.ndarray  # float32 [B, R * samples of a frame + 2 * pad]: another stretch of the same voice
    seeds: np.ndarray      # uint32 [B]
