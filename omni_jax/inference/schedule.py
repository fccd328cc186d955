"""When which blocks of mel are solved and sounded: a function of the code index alone.

Whole replies and streamed ones, single ones and batches share it, so they give the same sound.
"""

import dataclasses

# Mel frames to each side that the vocoder is given. Beyond 28 of its reach of 34, energetic random weights change a
# sample by less than float32 resolves (tests/models/test_bigvgan.py), and the first two blocks then give 0.2 s.
CONTEXT = 28


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`sizes`: blocks of the first chunks; `aheads`: blocks solved together with each, and again when their turn comes,
    so that the chunk's own see what they need of their future. The last of each goes on for ever."""

    sizes: tuple[int, ...]
    aheads: tuple[int, ...]

    def size(self, chunk: int) -> int:
        return self.sizes[min(chunk, len(self.sizes) - 1)]

    def ahead(self, chunk: int) -> int:
        return self.aheads[min(chunk, len(self.aheads) - 1)]

    def solved(self, chunk: int) -> int:
        """The blocks that are solved together."""
        return self.size(chunk) + self.ahead(chunk)

    def first(self, chunk: int) -> int:
        """The block that a chunk begins with."""
        return sum(self.sizes[:chunk]) + max(0, chunk - len(self.sizes)) * self.sizes[-1]

    def codes_needed(self, chunk: int, codes_per_block: int = 12) -> int:
        """How many codes a reply must have before a chunk is solved, unless the reply has ended. (Without look-ahead
        one code more than the chunk's: then something is known to follow.)"""
        return codes_per_block * (self.first(chunk) + self.solved(chunk)) + (not self.ahead(chunk))

    def shapes(self) -> tuple[int, ...]:
        """Numbers of blocks that are solved together: what is compiled for."""
        return tuple(sorted({self.solved(chunk) for chunk in range(max(len(self.sizes), len(self.aheads)))}))

    def fit(self, blocks: int) -> int:
        """The smallest shape that holds so many blocks."""
        return next(shape for shape in self.shapes() if shape >= blocks)

    def fit_sound(self, blocks: int) -> int:
        """The smallest number of blocks, of those that are sounded together, that holds so many."""
        return next(size for size in sorted(set(self.sizes)) if size >= blocks)


# Little work before the first sound, then chunks as large as all before them: the look-ahead costs less and less, and
# no later chunk asks for a faster Talker than the second does. The first chunk looks ahead half as far, which is a
# quarter less to wait for (tools/solve_distance.py says what it costs).
SCHEDULE = Schedule((2, 2, 4, 8), (1, 2))
