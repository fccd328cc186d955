"""Masks of the mels that training sees."""

import dataclasses

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.data.batch import AudioClip, Example, Prompt
from omni_jax.training.config import SpecAugmentConfig
from omni_jax.training.datasets import held_out_batches, train_batches
from omni_jax.training.spec_augment import hidden, spec_augment

MEL = np.random.default_rng(0).standard_normal((400, 128)).astype(np.float32)


def test_bands_are_masked_for_the_whole_time():
    for seed in range(20):
        masked = hidden(MEL, SpecAugmentConfig(bands=1, band=20), np.random.default_rng(seed)) != MEL
        bins = np.flatnonzero(masked.any(0))
        assert masked[:, bins].all() and len(bins) <= 20 and len(bins) == (np.ptp(bins) + 1 if len(bins) else 0)


def test_spans_are_masked_in_all_bins_and_grow_with_the_length():
    config, counts = SpecAugmentConfig(spans=1.0, span=30), []
    for seed in range(200):
        masked = hidden(MEL, config, np.random.default_rng(seed)) != MEL
        assert (masked.all(1) == masked.any(1)).all()
        counts.append(masked.any(1).sum())
    assert 40 < np.mean(counts) < 65  # four spans of 15 frames on average, some of which overlap
    assert hidden(MEL[:5], config, np.random.default_rng(0)).shape == (5, 128)


def test_an_example_keeps_all_but_its_mels():
    clip, before = AudioClip(MEL, np.arange(100, dtype=np.int32)), MEL.copy()
    example = Example(Prompt(np.arange(110, dtype=np.int32), (clip,), (), ()), np.ones(110, bool))
    assert spec_augment(example, SpecAugmentConfig(), np.random.default_rng(0)) is example
    other = spec_augment(example, SpecAugmentConfig(bands=2, band=30), np.random.default_rng(0))
    assert (other.prompt.clips[0].mel != MEL).any() and other.prompt.clips[0].positions is clip.positions
    np.testing.assert_array_equal(clip.mel, before)


def test_training_hears_masks_and_the_held_out_part_does_not(run, processor):
    masking = dataclasses.replace(run, data=dataclasses.replace(run.data, spec_augment=SpecAugmentConfig(2, 60)))
    mels = [next(iter(batches(config, processor))).arrays.audio[0].mel
            for config in (run, masking) for batches in (train_batches, held_out_batches)]
    assert (mels[0] != mels[2]).any()
    np.testing.assert_array_equal(mels[1], mels[3])


def test_numbers_below_zero_are_refused():
    with pytest.raises(OmniError, match="spec_augment"):
        SpecAugmentConfig(spans=-1)
