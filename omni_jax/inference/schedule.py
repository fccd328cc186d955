"""When which blocks of mel are solved and sounded: a function of the code index alone.

Whole replies and streamed ones, single ones and batches share it, so they give the same sound.
"""

import dataclasses

# Mel frames to each side that the vocoder is given. Beyond 28 of its reach of 34, energetic random weights change a
# sample by less than float32 resolves (tests/models/test_bigvgan.py), and the first two blocks then give 0.2 s.
CONTEXT = 28


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`sizes`: blocks of the first chunks, of which the last size goes on for ever. `ahead`: blocks solved together
    with a chunk and solved again when their turn comes, so that the chunk's own see what they need of their future."""

    sizes: tuple[int, ...]
    ahead: int

    def size(self, chunk: int) -> int:
        return self.sizes[min(chunk, len(self.sizes) - 1)]

    def first(self, chunk: int) -> int:
        """The block that a chunk begins with."""
        return sum(self.sizes[:chunk]) + max(0, chunk - len(self.sizes)) * self.sizes[-1]

    def codes_needed(self, chunk: int, codes_per_block: int = 12) -> int:
        """How many codes a reply must have before a chunk is solved, unless the reply has ended. (Without look-ahead
        one code more than the chunk's: then something is known to follow.)"""
        return codes_per_block * (self.first(chunk) + self.size(chunk) + self.ahead) + (not self.ahead)

    def shapes(self) -> tuple[int, ...]:
        """Numbers of blocks that are solved together: what is compiled for."""
        return tuple(sorted({size + self.ahead for size in self.sizes}))

    def fit(self, blocks: int) -> int:
        """The smallest shape that holds so many blocks."""
        return next(shape for shape in self.shapes() if shape >= blocks)

    def fit_sound(self, blocks: int) -> int:
        """The smallest number of blocks, of those that are sounded together, that holds so many."""
        return next(size for size in sorted(set(self.sizes)) if size >= blocks)



# Little work before the first sound, then chunks as large as all before them: the look-ahead costs less and less, and
# no later chunk asks for a faster Talker than the second does.
SCHEDULE = Schedule((2, 2, 4, 8), 2)
