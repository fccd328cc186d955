"""What the lines of a manifest become: the forms of examples that objectives learn from.

A form reads a line into an example, says what it takes of a batch's room, and puts examples together in batches of
fixed shapes. The room is an int array, of which the first `per_row` numbers are limited in each row and the others in
the micro-batch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from omni_jax.data.batch import Example
from omni_jax.data.processor import Processor
from omni_jax.errors import OmniError, require
from omni_jax.training.batch import SpokenBatch, TrainBatch
from omni_jax.training.clips import Clips
from omni_jax.training.config import TrainConfig
from omni_jax.training.manifests import Line
from omni_jax.training.packing import PER_ROW, Read, budget, cost, to_batch
from omni_jax.training.spec_augment import spec_augment
from omni_jax.training.utterances import Utterance, masked, talker_rows, utterances
from omni_jax.weights import find_speakers
from omni_jax.weights.speakers import Speaker


class Form(Protocol):
    per_row: int

    def budget(self) -> np.ndarray:
        """The room of an empty micro-batch."""

    def read(self, line: Line, rng: np.random.Generator) -> Read:
        """Raises OmniError if the line is broken, or if no micro-batch has room for it."""

    def to_batch(self, rows: Sequence[Sequence[Any]], length: int) -> Any:
        """Rows of examples, which must fit; length: tokens of a row."""


@dataclasses.dataclass(frozen=True)
class Texts:
    """Conversations, of which the text is learnt."""

    run: TrainConfig
    processor: Processor
    per_row = PER_ROW

    def budget(self) -> np.ndarray:
        return budget(self.run.data)

    def read(self, line: Line, rng: np.random.Generator) -> Read:
        data = self.run.data
        example = self.processor.example(line.conversation(), data.use_audio_in_video, length=data.length)
        example = spec_augment(example, data.spec_augment, rng)
        taken = cost(example.prompt, self.processor.config, data)
        return Read(example, taken, len(example.learn), int(example.learn.sum()))

    def to_batch(self, rows: Sequence[Sequence[Example]], length: int) -> TrainBatch:
        return to_batch(rows, length, self.processor.config, self.run.data.media)


@dataclasses.dataclass(frozen=True)
class Spoken:
    """Conversations, of which the speech is learnt; with `pairs`, what is better of two renderings."""

    texts: Texts
    speakers: Mapping[str, Speaker]
    pairs: bool
    per_row = PER_ROW + 1

    def budget(self) -> np.ndarray:
        return np.insert(self.texts.budget(), PER_ROW, self.texts.run.data.speech_length)

    def read(self, line: Line, rng: np.random.Generator) -> Read:
        run, config = self.texts.run, self.texts.processor.config
        example, taken, _, _ = self.texts.read(line, rng)
        said = utterances(example, config, self.speakers, run.speech.apart, self.pairs, rng)
        if run.speech.masked:
            said = [masked(each, run.speech.masked, config, rng) for each in said]
        steps = sum(each.steps for each in said)
        require(steps <= run.data.speech_length, "speech", f"takes {steps:,} steps of the Talker (data.speech_length "
                f"is {run.data.speech_length:,}); raise that number or shorten it")
        learnt = sum(len(each.codes) + 1 for each in said)
        return Read((example, said), np.insert(taken, PER_ROW, steps), len(example.learn) + steps, learnt)

    def to_batch(self, rows: Sequence[Sequence[tuple[Example, list[Utterance]]]], length: int) -> SpokenBatch:
        firsts = [np.cumsum([0, *(len(example.learn) for example, _ in row)])[:-1].tolist() for row in rows]
        placed = [[(first, said) for first, (_, said) in zip(own, row, strict=True)]
                  for own, row in zip(firsts, rows, strict=True)]
        return SpokenBatch(self.texts.to_batch([[example for example, _ in row] for row in rows], length),
                           talker_rows(placed, self.texts.run.data.speech_length, self.texts.processor.config))


def form_of(name: str, run: TrainConfig, processor: Processor) -> Form:
    """The form of that name for a run. Raises OmniError."""
    texts = Texts(run, processor)
    if name == "text":
        return texts
    if processor.config.talker_config is None:
        raise OmniError(f"{run.model}: has no Talker and no Token2Wav; objective {run.objective!r} needs them")
    speakers = find_speakers(run.model)
    if name in ("clips", "coded_clips"):
        return Clips(run, processor.config.token2wav_config, speakers, coded=name == "coded_clips")
    return Spoken(texts, speakers, pairs=name == "pairs")
