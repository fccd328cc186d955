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
    """curves.png: the loss, held out as well, and the learning rate by step. None if there is no step yet."""
    rows = lines(workdir)
    if not rows:
        return None
    from matplotlib.figure import Figure

    figure = Figure((9, 4), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(3, 1))
    axes[0].plot([r["step"] for r in rows], [r["loss"] for r in rows], lw=0.8, alpha=0.6, label="training")
    held_out = [(r["step"], r["held_out/loss"]) for r in rows if "held_out/loss" in r]
    if held_out:
        axes[0].plot(*zip(*held_out, strict=True), "o-", ms=3, label="held out")
    axes[0].set(xlabel="step", ylabel="loss (nats a token)")
    axes[0].legend()
    axes[1].plot([r["step"] for r in rows], [r["learning_rate"] for r in rows])
    axes[1].set(xlabel="step", ylabel="learning rate")
    figure.savefig(Path(workdir) / "curves.png", dpi=120)
    return Path(workdir) / "curves.png"
