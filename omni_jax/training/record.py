"""What a run leaves to look at: metrics.jsonl, TensorBoard events, curves.png."""

import json
import os
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class Record:
    """The metrics of a run, one line a step. Only the first process of several keeps one."""

    def __init__(self, workdir: str | Path, step: int):
        """step: where the run goes on; lines of later steps, which will be done again, are dropped."""
        from tensorboardX import SummaryWriter

        self.workdir = Path(workdir)
        self._cut(step)
        self._file = open(self.workdir / METRICS, "a", encoding="utf-8")  # noqa: SIM115 (held for the whole run)
        self._board = SummaryWriter(str(self.workdir / "tensorboard"), purge_step=step + 1)

    def add(self, values: dict[str, float]) -> None:
        """One step's metrics, its number among them."""
        print(json.dumps(values), file=self._file, flush=True)
        for name, value in values.items():
            if name != "step":
                self._board.add_scalar(name, value, values["step"])

    def close(self) -> None:
        self._file.close()
        self._board.close()
        draw(self.workdir)

    def _cut(self, step: int) -> None:
        kept = [line for line in lines(self.workdir) if line["step"] <= step]
        partial = self.workdir / f".{METRICS}.partial"
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.workdir / METRICS)


def lines(workdir: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that a kill cut short is left out."""
    path, found = Path(workdir) / METRICS, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def draw(workdir: str | Path) -> Path | None:
    """curves.png: the loss, what else is measured on held-out data, and the learning rate by step. None if there is no
    step yet."""
    rows = lines(workdir)
    if not rows:
        return None
    from matplotlib.figure import Figure

    evaluated = [row for row in rows if "held_out/loss" in row]
    more = [name for name in (evaluated[-1] if evaluated else {}) if name.startswith("held_out/")]
    names = ["loss", *(name.partition("/")[2] for name in more if name != "held_out/loss"), "learning_rate"]
    figure = Figure((5 + 3 * (len(names) - 1), 4), layout="constrained")
    axes = figure.subplots(1, len(names), width_ratios=(5, *[3] * (len(names) - 1)))
    for axis, name in zip(axes, names, strict=True):
        for title, key, style in (("training", name, "-"), ("held out", f"held_out/{name}", "o-")):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axis.plot(*zip(*points, strict=True), style, ms=3, lw=0.8, label=title)
        axis.set(xlabel="step", title=name.replace("_", " "))
    axes[0].legend()
    figure.savefig(Path(workdir) / "curves.png", dpi=120)
    return Path(workdir) / "curves.png"
