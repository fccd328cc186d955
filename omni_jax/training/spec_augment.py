"""SpecAugment: bands and stretches of a sound's mel that a recogniser must do without (arXiv 1904.08779)."""

import dataclasses

import numpy as np

from omni_jax.data.batch import Example
from omni_jax.training.config import SpecAugmentConfig

SECOND = 100  # mel frames


def spec_augment(example: Example, config: SpecAugmentConfig, rng: np.random.Generator) -> Example:
    """The example with other mels of its sounds; itself where the config hides nothing."""
    if not (config.bands or config.spans):
        return example
    clips = tuple(dataclasses.replace(clip, mel=hidden(clip.mel, config, rng)) for clip in example.prompt.clips)
    return dataclasses.replace(example, prompt=dataclasses.replace(example.prompt, clips=clips))


def hidden(mel: np.ndarray, config: SpecAugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A mel float32 [frames, M] whose masked parts have its mean."""
    mel, mean = mel.copy(), mel.mean()
    for _ in range(config.bands):
        mel[:, _stretch(mel.shape[1], config.band, rng)] = mean
    for _ in range(rng.poisson(config.spans * len(mel) / SECOND)):
        mel[_stretch(len(mel), config.span, rng)] = mean
    return mel


def _stretch(length: int, widest: int, rng: np.random.Generator) -> slice:
    width = int(rng.integers(min(widest, length) + 1))
    first = int(rng.integers(length - width + 1))
    return slice(first, first + width)
