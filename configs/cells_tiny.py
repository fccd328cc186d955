"""A trial: the vision tower alone learns what each cell of a picture shows: what, in which colour, where, of how many.

    python -m tools.train configs/cells_tiny.py --workdir out/tiny/cells

All of a picture is told at once, without the language model: on two cores 90 pictures a second, and each says more than
an answer does. The head and its norm learn with it, to read this off, and are left behind. Natural colours were told of
single things alone. Expect 1.51 / 1.37 / 1.24 / 1.18 / 1.16 nats a cell on the held-out pictures after 250 / 500 /
1,000 / 1,500 / 2,000 steps, in training 0.93; 35 minutes on two cores. What comes of it, align_tiny.py says.
"""

from configs.tiny_stages import CELLS, LOOKING, sources, tiny
from omni_jax.training.config import MediaBudget

config = tiny("frozen_model", CELLS, MediaBudget(frame_pairs=((1, 88),), pictures=1), length=288, batch_size=88,
              steps=2_000, objective="cells", **{
                  **LOOKING, "train": ("thinker/vision/*", "thinker/lm_head/*", "thinker/decoder/norm/*"),
                  "data.held_out": sources({"seeing/cells_": 1.0}, "held_out"), "data.pack": False,
                  "optimizer.muon_rate": 6.0})
