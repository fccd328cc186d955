"""Checkpoints of a run: what learns, the optimizer, and where the data stood, written by orbax while training goes on.

WORKDIR/config.json says what the run is; WORKDIR/checkpoints/STEP holds a state, under that name only when it is whole.
"""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from omni_jax.errors import OmniError
from omni_jax.training.config import TrainConfig, from_json
from omni_jax.training.step import TrainState
from omni_jax.weights.files import size_text

CONFIG = "config.json"
# What may differ when a run goes on: how it is watched and where it runs, not what it computes.
FREE = ("mesh", "eval_every", "eval_batches", "checkpoint_every", "keep", "remat", "data.workers", "data.held_out")


class Checkpoints:
    """The checkpoints of one run. Every process of a run makes the same calls."""

    def __init__(self, workdir: str | Path, keep: int = 3):
        self.directory = Path(workdir).absolute() / "checkpoints"
        _quiet()
        self._manager = ocp.CheckpointManager(self.directory, options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True))

    @property
    def latest(self) -> int | None:
        """The last whole checkpoint's step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: dict[str, Any], shard: int = 0) -> None:
        """Begins to write a state; training may go on at once. `data`: where this process's data
        shard stands, for JSON.

        Raises OmniError if the disk has no room for it, or if the checkpoint before could not be written."""
        self.wait()
        step, leaves = int(state.step), _flat(state)
        needed, free = sum(leaf.nbytes for leaf in leaves.values()), shutil.disk_usage(self.directory).free
        if needed > free:
            raise self._failed(step, f"it needs {size_text(needed)} and the disk has {size_text(free)} free")
        try:
            self._manager.save(step, args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(leaves), data=ocp.args.JsonSave({"shards": _gathered(data, shard)})))
        except Exception as error:  # tensorstore's errors are ValueErrors, with the cause in their text
            raise self._failed(step, _cause(error)) from None

    def wait(self) -> None:
        """Until what is being written is whole. Raises OmniError if it could not be."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(None, _cause(error)) from None

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, list[dict[str, Any]]]:
        """A state on the mesh of the abstract one, whatever mesh it was written from, and each data shard's state."""
        step, wanted = self.latest if step is None else step, _flat(abstract)
        place = lambda leaf: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=jax.tree.map(place, wanted))
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(state=arguments, data=ocp.args.JsonRestore()))
        except Exception as error:
            raise OmniError(f"{self.directory / str(step)}: cannot be restored ({_cause(error)}); remove it to go "
                            "on from the one before") from None
        leaves = [found.state[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves), found.data["shards"]

    def close(self) -> None:
        self._manager.close()

    def _failed(self, step: int | None, cause: str) -> OmniError:
        what = f"checkpoint of step {step}" if step is not None else "the last checkpoint"
        kept = f"the one of step {self.latest} is whole" if self.latest is not None else "there is none yet"
        return OmniError(f"{self.directory}: {what} could not be written ({cause}); {kept}, make room and start again")


def read_trained(workdir: str | Path, step: int | None = None) -> tuple[TrainConfig, int, dict[str, np.ndarray]]:
    """(what the run is, the step, {path: float32 array}) of a run's learnt parameters. Raises OmniError."""
    config = read_config(workdir)
    directory = Path(workdir).absolute() / "checkpoints"
    steps = sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit())
    if not steps:
        raise OmniError(f"{workdir}: has no checkpoint yet")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise OmniError(f"{workdir}: has no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    path = directory / str(step) / "state"
    _quiet()
    try:
        found = _read_params(path)
    except Exception as error:  # as in Checkpoints.restore
        raise OmniError(f"{path}: cannot be read ({_cause(error)}); give another --step") from None
    return config, step, found


def _read_params(path: Path) -> dict[str, np.ndarray]:
    """{path: float32 array} of a stored state's parameters, averaged where there are averages; nothing else is
    read."""
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        kind = "averages." if any(name.startswith("averages.") for name in stored) else "params."
        learns = lambda name: name.startswith(kind)
        wanted = {name: ocp.RestoreArgs(restore_type=np.ndarray) if learns(name) else ocp.PLACEHOLDER
                  for name in stored}
        item = {name: leaf if learns(name) else ocp.PLACEHOLDER for name, leaf in stored.items()}
        found = reader.restore(path, ocp.args.PyTreeRestore(item=item, restore_args=wanted))
    return {name.removeprefix(kind).replace(".", "/"): np.asarray(leaf)
            for name, leaf in found.items() if learns(name)}


def read_config(workdir: str | Path) -> TrainConfig:
    """What the run in a directory is. Raises OmniError."""
    path = Path(workdir) / CONFIG
    try:
        return from_json(TrainConfig, json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror}); give the directory of a training run") from None
    except ValueError as error:
        raise OmniError(f"{path}: is not what a run wrote ({error})") from None


def claim(workdir: str | Path, config: TrainConfig) -> None:
    """Makes the directory a run's, or checks that it is this run's. Raises OmniError that names what differs."""
    workdir = Path(workdir)
    if jax.process_index() == 0 and not (workdir / CONFIG).exists():
        workdir.mkdir(parents=True, exist_ok=True)
        partial = workdir / f".{CONFIG}.partial"
        partial.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, workdir / CONFIG)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run's directory")
    before = dict(_settings(dataclasses.asdict(read_config(workdir))))
    now = dict(_settings(dataclasses.asdict(config)))
    changed = [key for key in sorted(before.keys() | now.keys())
               if before.get(key) != now.get(key) and not key.startswith(FREE)]
    if changed:
        told = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:3])
        raise OmniError(f"{workdir}: holds another run: {told}; set it back, or give another --workdir")


def _settings(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _flat(state: TrainState) -> dict[str, Any]:
    """{name: leaf}, names without slashes, in the order of the tree's leaves."""
    found, _ = jax.tree.flatten_with_path(state)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")
    return {name(path): leaf for path, leaf in found}


def _gathered(data: dict[str, Any], shard: int) -> list[dict[str, Any]]:
    """The state of every data shard, in their order; processes that share one have the same."""
    if jax.process_count() == 1:
        return [data]
    text = np.frombuffer(json.dumps([shard, data]).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[:len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    states = dict(json.loads(bytes(row[:size])) for row, size in zip(rows, sizes.ravel(), strict=True))
    return [states[index] for index in sorted(states)]


def _quiet() -> None:
    """orbax logs the traceback of what it also raises."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _cause(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return "no space is left on the disk" if "No space left" in text else text.splitlines()[0][:200]
