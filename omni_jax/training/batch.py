"""Training batches: rows of one or several conversations with all their media, of what is said in them, and clips of
speech; in shapes that the config fixes."""

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

    def moved(self, places: np.ndarray) -> "TrainBatch":
        """The batch [A, …] as a part of a larger one: its row b is there row places[b], and its padding places[-1]."""
        length = self.token_ids.shape[-1]
        where = lambda d: (places[d // length] * length + d % length).astype(np.int32)
        group = lambda group: group._replace(destination=where(group.destination))
        return self._replace(audio=tuple(map(group, self.audio)), vision=tuple(map(group, self.vision)))


class TalkerRows(NamedTuple):
    """B rows of S steps of the Talker: one or several utterances, each with all that was read before it.

    A step's input is the sum of what the Thinker makes of a token (`source`), the embedding of a token of text and that
    of a codec id; -1 is none. Its rotary id is that of the Thinker's token `place`, or, where `beyond` is not 0, so
    many above the greatest up to there.
    """

    segments: np.ndarray  # int32 [B, S]: utterances of a row, from 1; 0 is padding. Of a pair, the better comes first
    source: np.ndarray    # int32 [B, S]: token of the same row of the text, or -1
    text: np.ndarray      # int32 [B, S]: token id, or -1
    code: np.ndarray      # int32 [B, S]: codec id, or -1
    place: np.ndarray     # int32 [B, S]: token of the same row of the text
    beyond: np.ndarray    # int32 [B, S]
    targets: np.ndarray   # int32 [B, S]: codec ids
    weights: np.ndarray   # float32 [B, S]


class SpokenBatch(NamedTuple):
    """Conversations, and what is said in them."""

    text: TrainBatch
    speech: TalkerRows

    def moved(self, places: np.ndarray) -> "SpokenBatch":
        """See TrainBatch.moved."""
        return self._replace(text=self.text.moved(places))


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

    def moved(self, places: np.ndarray) -> "ClipBatch":
        """See TrainBatch.moved."""
        return self
