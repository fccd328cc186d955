import dataclasses

import jax
import numpy as np
import pytest

from omni_jax.errors import OmniError
from omni_jax.training.config import DataConfig, MediaBudget, Source
from omni_jax.training.manifests import Manifest
from omni_jax.training.packing import budget, choose, cost, join, scores, to_batch
from tests.data.media_files import one_sentence

MEDIA = MediaBudget(audio_blocks=12, frame_pairs=((1, 14), (3, 5)), pictures=6)
DATA = DataConfig(train=(), length=700, media=MEDIA)


@pytest.fixture(scope="module")
def examples(processor, smoke):
    """Pictures (one of them of three bins), sounds, videos with their sounds and text."""
    lines = list(Manifest(Source(str(smoke / "train.jsonl"))))[:11]
    conversations = [line.conversation() for line in lines]
    conversations[0][0]["content"][0] |= {"resized_height": 56, "resized_width": 28 * 17}
    return [processor.example(each, use_audio_in_video=True) for each in conversations]


@pytest.fixture(scope="module")
def rows(examples):
    return [[examples[i] for i in row] for row in ((0, 3, 2, 1), (), (4, 6, 9, 5, 7), (10, 8))]


def by_destination(batch):
    """{flat token: what the towers put there} and how many destinations are no padding."""
    found, nowhere, filled = {}, batch.token_ids.size, 0
    for group in batch.vision:
        for pair, bin_, slot in zip(*np.nonzero(group.destination < nowhere), strict=True):
            row, column, window = group.cells[pair, bin_, slot]
            alike = group.cells[pair, bin_, :, 2] == window
            found[int(group.destination[pair, bin_, slot])] = (
                group.pixels[pair, bin_, slot].tobytes(), int(row), int(column), int(alike.sum()))
        filled += int((group.destination < nowhere).sum())
    for group in batch.audio:
        for block, i in zip(*np.nonzero(group.destination < nowhere), strict=True):
            found[int(group.destination[block, i])] = (group.mel[block].tobytes(), int(group.frames[block]), int(i))
        filled += int((group.destination < nowhere).sum())
    return found, filled


def test_packed_rows_are_their_examples(processor, rows):
    """Tokens, what is learnt, and every pixel and frame of mel, as in a batch of the example alone."""
    batch, length = to_batch(rows, 700, processor.config, MEDIA), 700
    packed, filled = by_destination(batch)
    assert filled == len(packed)
    for b, row in enumerate(rows):
        start, pictures = 0, 0
        for s, example in enumerate(row, 1):
            place, n = np.flatnonzero(batch.segments[b] == s), len(example.learn)
            assert place.tolist() == list(range(start, start + n))
            np.testing.assert_array_equal(batch.token_ids[b, place], example.prompt.token_ids)
            np.testing.assert_array_equal(batch.weights[b, place], example.learn.astype(np.float32))
            alone = to_batch([[example]], n, processor.config, MEDIA)
            for t, value in by_destination(alone)[0].items():
                assert packed.pop(b * length + start + t) == value
            count = len(example.prompt.pictures)
            own = slice(pictures, pictures + count)
            np.testing.assert_array_equal(batch.vision_grid[b, own], alone.vision_grid[0, :count])
            np.testing.assert_array_equal(batch.seconds_per_grid[b, own], alone.seconds_per_grid[0, :count])
            start, pictures = start + n, pictures + count
        assert not batch.segments[b, start:].any() and not batch.weights[b, start:].any()
        assert (batch.token_ids[b, start:] == processor.config.thinker_config.pad_token_id).all()
        assert not batch.vision_grid[b, pictures:].any()
    assert not packed


def test_shapes_are_those_of_the_budget(processor, rows):
    batch, empty = (to_batch(each, 700, processor.config, MEDIA) for each in (rows, [[]] * 4))
    describe = lambda x: (x.shape, x.dtype)
    assert jax.tree.map(describe, batch) == jax.tree.map(describe, empty)
    assert batch.vision_grid.shape == (4, 6, 3) and batch.audio[0].mel.shape == (12, 200, 128)
    assert [group.pixels.shape for group in batch.vision] == [(14, 1, 16, 4, 1176), (5, 3, 16, 4, 1176)]
    assert not to_batch(rows[1:2], 700, processor.config, MediaBudget()).audio


def test_costs(processor, examples):
    """A picture of 2 x 17 cells has windows of 4 x 4 in three bins; a video of 6 frames three pairs of one bin."""
    costs = [cost(example.prompt, processor.config, DATA).tolist() for example in examples[:4]]
    assert [c[0] for c in costs] == [len(example.learn) for example in examples[:4]]
    assert [c[1:] for c in costs] == [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 3, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("index", "change", "words"), [
    (0, {"frame_pairs": ((1, 14), (2, 9))}, ["3 bins", "data.media.frame_pairs", "max_pixels"]),
    (2, {"frame_pairs": ((1, 2),)}, ["3 frame pairs", "data.media.frame_pairs", "is 2"]),
    (2, {"pictures": 0}, ["1 pictures", "data.media.pictures", "is 0"]),
    (1, {"audio_blocks": 0}, ["1 blocks", "data.media.audio_blocks", "is 0"])])
def test_what_fits_no_budget(processor, examples, index, change, words):
    data = dataclasses.replace(DATA, media=dataclasses.replace(MEDIA, **change))
    with pytest.raises(OmniError) as error:
        cost(examples[index].prompt, processor.config, data)
    one_sentence(error, "media", *words)


def test_rows_are_full_but_never_too_full():
    """The oldest is taken, the budget holds, and nothing that is left would have fitted."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        room = np.array([100, 6, 9, 12])
        costs = np.stack([rng.integers(1, 60, 20), rng.integers(0, 3, 20), rng.integers(0, 4, 20),
                          rng.integers(0, 5, 20)], axis=1)
        chosen, left = choose(costs, room, scores(costs[:, 0], None), len(costs))
        assert chosen[0] == 0 and len(set(chosen)) == len(chosen)
        np.testing.assert_array_equal(left, room - costs[chosen].sum(0))
        assert (left >= 0).all() and not (np.delete(costs, chosen, 0) <= left).all(1).any()
        assert chosen[1:] == sorted(chosen[1:], key=lambda i: -costs[i, 0])
    assert choose(costs[:0], room, scores(costs[:0, 0], None), 3)[0] == []


def test_alike_lengths():
    costs = np.array([[50], [90], [48], [10], [52]])
    assert choose(costs, np.array([1000]), scores(costs[:, 0], 50), 1)[0] == [0]
    assert choose(costs, np.array([1000]), scores(costs[:, 0], 50), 3)[0] == [0, 2, 4]


def test_budget_of_a_micro_batch():
    assert budget(DATA).tolist() == [700, 6, 12, 14, 5] and join([]).token_ids.shape == (0,)
