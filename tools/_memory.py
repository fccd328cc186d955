"""What the C library does with memory that is given back."""

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc keep what is freed instead of giving it back to the system; elsewhere nothing changes.

    XLA's programs on the CPU get their temporaries anew at each call, hundreds of megabytes in training, and the system
    clears every page of them again: a sixth of a step's time (of configs/talker_smoke.py on two cores: 1.93 s, and 1.63
    s without). Call it before JAX has made its threads.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_ARENA_MAX, 1)
