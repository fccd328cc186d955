"""The vision tower alone learns what each cell of a picture shows: what, in which colour, where, of how many.

    python -m tools.train configs/cells_tiny.py --workdir out/tiny/cells

All of a picture is told at once, without the language model: 60 pictures a second on two cores, and each says more than
an answer does. The head and its norm learn with it, to read this off, and are left behind. Micro-batches of 22 pictures
stay in the cores' caches: a gradient of 88 at a time takes a fifth longer.

It was run in two parts, the rate begun anew: 665 steps of 66 pictures of `seeing` alone, two devices of one core each
and Adam for the merger, to 1.48 nats a cell on the held-out pictures; then 1,500 of 88, with the first 20,000 pictures
of `looking`: 1.34 / 1.25 / 1.20 / 1.18 after 400 / 800 / 1,200 / 1,500, in training 0.84; 60 minutes in all on two
cores, with data made beside it. What comes of it, align_tiny.py says.
"""

from configs.tiny_stages import CELLS, telling

config = telling("looked_model", CELLS, steps=2_150)
