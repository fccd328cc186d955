import numpy as np
import pytest

from omni_jax.data.buckets import bucket, power_of_two, token_bucket
from omni_jax.data.windows import window_bins


@pytest.mark.parametrize(("rows", "cols", "side"), [
    (1, 1, 4), (4, 4, 4), (17, 30, 4), (5, 9, 4), (3, 50, 4), (8, 8, 4), (7, 11, 3), (1, 40, 4), (23, 21, 5), (9, 9, 1),
])
def test_every_cell_once_and_windows_whole(rows, cols, side):
    bins = window_bins(rows, cols, side)
    assert bins.dtype == np.int32 and bins.shape[1:] == (side * side, 3)
    filled = bins[bins[..., 2] >= 0]
    assert sorted(map(tuple, filled[:, :2].tolist())) == [(r, c) for r in range(rows) for c in range(cols)]
    assert (bins[bins[..., 2] < 0] == -1).all()
    windows = {}  # window id -> corners of its cells; -> bins it stands in
    for i, cells in enumerate(bins):
        for r, c, window in cells[cells[:, 2] >= 0].tolist():
            windows.setdefault(window, set()).add((r // side, c // side, i))
    assert all(len(places) == 1 for places in windows.values())
    assert len({next(iter(p))[:2] for p in windows.values()}) == len(windows)


def test_bins_are_few():
    assert len(window_bins(17, 30, 4)) == 32  # 40 windows; 510 cells fill 31.9 bins
    assert len(window_bins(1, 40, 4)) == 3
    for rows, cols in np.random.default_rng(0).integers(1, 60, (200, 2)).tolist():
        assert np.ceil(rows * cols / 16) <= len(window_bins(rows, cols, 4)) <= np.ceil(rows / 4) * np.ceil(cols / 4)


def test_bins_are_cached_and_read_only():
    assert window_bins(6, 7, 4) is window_bins(6, 7, 4)
    with pytest.raises(ValueError, match="read-only"):
        window_bins(6, 7, 4)[0, 0] = 0


def test_buckets():
    assert sorted({bucket(n) for n in range(1, 65)}) == [
        1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert [bucket(n, 8) for n in (0, 1, 8, 9, 10, 11)] == [8, 8, 8, 10, 10, 12]
    assert all(n <= bucket(n) <= 1.25 * n and n <= bucket(n, steps=8) <= 1.125 * n for n in range(1, 5000))
    assert [bucket(n, steps=8) for n in range(1, 20)] == [*range(1, 17), 18, 18, 20]
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 1023)] == [1, 1, 2, 4, 4, 8, 1024]


def test_token_buckets():
    assert [token_bucket(n) for n in (0, 1, 32, 33, 65, 257, 512, 513, 1024, 1025)] == [
        32, 32, 32, 64, 128, 512, 512, 1024, 1024, 1536]
