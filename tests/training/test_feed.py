"""Which rows are a process's own, however the mesh orders the chips, and where its media then go."""

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.data.batch import AudioBlocks
from omni_jax.training.batch import TrainBatch
from omni_jax.training.feed import shard_among


def test_rows_need_not_be_neighbours():
    held = {0: {0, 1, 4, 5}, 1: {2, 3, 6, 7}, 2: {8, 9, 12, 13}, 3: {10, 11, 14, 15}}
    found = [shard_among(held, process) for process in range(4)]
    assert [shard.index for shard in found] == [0, 1, 2, 3] and {shard.count for shard in found} == {4}
    assert found[1].rows == (2, 3, 6, 7)
    assert shard_among({0: {2, 3}, 1: {0, 1}}, 0)[:2] == (1, 2)  # not the process's number


def test_processes_of_one_model_axis_hold_the_same_rows():
    held = {0: {0, 1}, 1: {0, 1}, 2: {2, 3}, 3: {2, 3}}
    assert [shard_among(held, process)[:2] for process in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize("held", [{0: {0, 1}, 1: {1, 2}}, {0: {0, 1, 2}, 1: {3}}])
def test_hosts_that_share_some_rows(held):
    with pytest.raises(OmniError, match="some hosts would share a part of their rows"):
        shard_among(held, 0)


def test_destinations_follow_their_rows():
    places = np.array([2, 5, 8])  # two rows of a process among eight, and padding behind all
    given = np.array([0, 3, 10 + 4, 20])  # rows of ten tokens; 20 is padding
    sound = AudioBlocks(np.zeros((1, 2, 4)), np.zeros((1, 2)), given.reshape(1, 2, 2))
    batch = TrainBatch(np.zeros((1, 2, 10)), *[None] * 4, audio=(sound,), vision=())
    assert batch.moved(places).audio[0].destination.ravel().tolist() == [20, 23, 54, 80]
