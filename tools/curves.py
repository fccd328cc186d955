"""Draws the losses of several runs in one small picture, in training and on held-out data.

Example:
  python -m tools.curves out/tiny/contrast out/tiny/language --out losses.png
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from omni_jax.errors import require
from omni_jax.training.record import METRICS, lines
from omni_jax.weights.files import whole_file
from tools._cli import parser, run

COLUMNS = 4
COLOURS = 16  # of the picture: it comes with the weights
POINTS = 100  # of a training curve, each a mean


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="working directories of tools.train")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    arguments = made.parse_args(argv)
    draw(arguments.runs, arguments.out)
    return {"picture": str(arguments.out), "bytes": arguments.out.stat().st_size}


def draw(runs: Sequence[Path], out: Path) -> None:
    """A panel for each run, named after its directory. Raises OmniError."""
    found = [(path, [row for row in lines(path) if "loss" in row]) for path in runs]
    for path, rows in found:
        require(bool(rows), str(path / METRICS), "has no step; give the working directory of a run of tools.train")
    height = -(-len(found) // COLUMNS)
    figure = Figure((2.6 * COLUMNS, 1.9 * height), layout="constrained")
    axes = list(figure.subplots(height, COLUMNS, squeeze=False).flat)
    for axis, (path, rows) in zip(axes, found, strict=False):
        parts = np.array_split(np.array([(row["step"], row["loss"]) for row in rows]), min(POINTS, len(rows)))
        axis.plot(*np.stack([part.mean(0) for part in parts]).T, lw=0.8, label="training")
        held_out = [(row["step"], row["held_out/loss"]) for row in rows if "held_out/loss" in row]
        if held_out:
            axis.plot(*zip(*held_out, strict=True), "o-", ms=3, lw=0.8, label="held out")
        axis.set_title(path.resolve().name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(found):]:
        axis.axis("off")
    figure.axes[0].legend(fontsize=7)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel("loss", fontsize=8)
    whole = io.BytesIO()
    figure.savefig(whole, dpi=100)
    with whole_file(out) as partial:
        Image.open(whole).convert("RGB").quantize(COLOURS).save(partial, format="PNG", optimize=True)


if __name__ == "__main__":
    run(main)
