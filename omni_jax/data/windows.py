"""How one frame pair's merged cells lie in bins for the vision tower's window attention.

The tower attends within windows of side x side merged cells; at the right and bottom edges they are partial. A bin
has room for one full window; partial ones share bins (first-fit decreasing), told apart by their window id.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def window_bins(rows: int, cols: int, side: int) -> np.ndarray:
    """int32 [W, side * side, 3] = (row, column, window id) of each slot's cell; -1 in all three if the slot is empty.

    Every cell of the rows x cols frame stands in exactly one slot; a window is never split over bins. The array is
    shared by all callers and read-only.
    """
    room = side * side
    windows = _windows(rows, cols, side)
    bins, free = [], []  # cells of each bin; bins that still have room
    for window in sorted(windows, key=len, reverse=True):
        place = next((i for i in free if len(bins[i]) + len(window) <= room), None)
        if place is None:
            place = len(bins)
            bins.append([])
            free.append(place)
        bins[place].extend(window)
        if len(bins[place]) == room:
            free.remove(place)
    slots = np.full((len(bins), room, 3), -1, np.int32)
    for i, cells in enumerate(bins):
        slots[i, : len(cells)] = cells
    slots.flags.writeable = False
    return slots


def _windows(rows: int, cols: int, side: int) -> list[list[tuple[int, int, int]]]:
    """The cells (row, column, window id) of each window, windows and cells in raster order."""
    corners = [(r, c) for r in range(0, rows, side) for c in range(0, cols, side)]
    return [[(r, c, index) for r in range(top, min(top + side, rows)) for c in range(left, min(left + side, cols))]
            for index, (top, left) in enumerate(corners)]
