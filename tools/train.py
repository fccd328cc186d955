"""Trains, or goes on with a run that is there already.

A configuration is a Python file with a `config` (omni_jax.training.config.TrainConfig); its docstring says what to
expect. WORKDIR gets metrics.jsonl, TensorBoard events, curves.png and checkpoints. On several hosts, start the same
command on each (on a TPU pod with --distributed alone; elsewhere say who is who).

Example:
  python -m tools.train configs/tuning_smoke.py --workdir out/tuning --set steps=200 --set optimizer.learning_rate=1e-3
"""

import runpy
import time
from pathlib import Path

import jax

from omni_jax.errors import OmniError
from omni_jax.training.config import TrainConfig, with_settings
from tools._cli import parser, run
from tools._memory import keep_freed_memory


def main(argv: list[str] | None = None) -> dict:
    arguments = _parser().parse_args(argv)
    config = with_settings(read(arguments.config), arguments.set)
    keep_freed_memory()
    _join(arguments)
    from omni_jax.training.loop import train

    started = time.perf_counter()
    last = train(config, arguments.workdir, progress=True)
    if last["step"] < config.steps:  # an error, so that nothing is made of a run that has not ended
        raise OmniError(f"{arguments.workdir}: was asked to stop after {last['step']:.0f} of {config.steps} steps, and "
                        "is saved; the same command goes on")
    return {"workdir": str(arguments.workdir), **last,
            "seconds_in_all": round(time.perf_counter() - started, 1)}


def read(path: Path) -> TrainConfig:
    """The `config` of a configuration file. Raises OmniError."""
    if not path.is_file():
        raise OmniError(f"{path}: is not a file; give one of configs/*.py")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, TrainConfig):
        raise OmniError(f"{path}: defines no `config` of type TrainConfig")
    return config


def _join(arguments) -> None:
    """Joins the processes of a run, before any device is touched."""
    named = (arguments.coordinator, arguments.processes, arguments.process)
    if any(value is not None for value in named):
        if any(value is None for value in named):
            raise OmniError("--coordinator, --processes and --process go together")
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    elif arguments.distributed:
        jax.distributed.initialize()


def _parser():
    made = parser(__doc__)
    made.add_argument("config", type=Path, metavar="CONFIG", help="a file of configs/")
    made.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="made if it does not exist")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. data.length=4096")
    made.add_argument("--distributed", action="store_true", help="on each of several hosts that know each other")
    made.add_argument("--coordinator", metavar="HOST:PORT", help="the first process's address")
    made.add_argument("--processes", type=int, metavar="N")
    made.add_argument("--process", type=int, metavar="I", help="this one's number, from 0")
    return made


if __name__ == "__main__":
    run(main)
