"""The one training loop: it feeds the step, looks at what comes back, evaluates, and keeps checkpoints."""

import contextlib
import functools
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from omni_jax.errors import OmniError
from omni_jax.training import setup as setups
from omni_jax.training.checkpoints import Checkpoints, claim
from omni_jax.training.config import TrainConfig
from omni_jax.training.datasets import Batches, Loaded, held_out_batches, train_batches
from omni_jax.training.feed import Shard, data_shard, put
from omni_jax.training.record import Record
from omni_jax.training.setup import Setup
from omni_jax.training.step import Params, TrainState, make_eval_step, make_train_step

ASKED_EVERY = 10  # steps on several hosts: asking them all waits for the step under way
NAMED = 64  # examples of a step whose loss is no number


def train(run: TrainConfig, workdir: str | Path, progress: bool = False, until: int | None = None) -> dict[str, float]:
    """Starts a run in `workdir`, or goes on with the one that is there. Returns the last step's metrics.

    until: the step after which to leave off, if not after the last.

    Raises OmniError for what is wrong with the configuration, the data or the checkpoint, before any weight is read;
    and later if the loss is no number any more, too many examples are broken, or the disk is full.
    """
    setup = setups.prepare(run)
    shard = data_shard(setup.mesh, setup.rows)
    held_out_batches(run, setup.processor, shard[:2])  # a wrong path is told now
    with contextlib.closing(train_batches(run, setup.processor, shard[:2])) as batches, \
            jax.set_mesh(setup.mesh), contextlib.ExitStack() as stack:
        claim(workdir, run)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, run.keep)))
        loop = Loop(setup, batches, checkpoints, shard, *_beginning(setup, batches, checkpoints, shard, progress))
        return loop.run(workdir, min(until or run.steps, run.steps), progress)


def _beginning(setup: Setup, batches: Batches, checkpoints: Checkpoints, shard: Shard,
               progress: bool) -> tuple[TrainState, Params]:
    """The state to go on from, and the frozen parameters; the data are put where they stood."""
    if checkpoints.latest is None:
        return setups.load(setup, progress)
    state, data = checkpoints.restore(setup.abstract)
    if len(data) != shard.count:
        raise OmniError(f"{checkpoints.directory}: the run read its data in {len(data)} parts and would now read "
                        f"{shard.count}; start it on as many hosts")
    batches.set_state(data[shard.index])
    return state, setups.load_frozen(setup, progress)


class Loop:
    """A run under way. The host looks at a step's metrics while the device computes the next."""

    def __init__(self, setup: Setup, batches: Batches, checkpoints: Checkpoints, shard: Shard,
                 state: TrainState, frozen: Params):
        self.setup, self.plan, self.batches, self.checkpoints = setup, setup.plan, batches, checkpoints
        self.shard, self.state, self.frozen = shard, state, frozen
        self.step = int(state.step)
        self._pending: tuple[dict[str, jax.Array], Loaded, float] | None = None
        self._record: Record | None = None
        self._since = time.perf_counter()
        self._last = {"step": self.step}
        self._train_step = make_train_step(setup.plan, setup.shardings)
        self._eval_step = make_eval_step(setup.plan)

    def run(self, workdir: str | Path, until: int, progress: bool) -> dict[str, float]:
        """Trains up to a step, or until a signal asks for the end: then what is done is kept."""
        run, main = self.plan.run, jax.process_index() == 0
        with contextlib.ExitStack() as stack:
            self._record = stack.enter_context(contextlib.closing(Record(workdir, self.step))) if main else None
            stopped = stack.enter_context(_asked_to_stop())
            bar = stack.enter_context(tqdm(total=run.steps, initial=self.step, disable=not (progress and main),
                                           file=sys.stderr, unit="step"))
            ended = self.step >= until
            while not ended:
                self._advance()
                ended = self.step == until or (self._may_ask() and stopped())
                evaluates, saves = self._due(run.eval_every) or self.step == run.steps, self._due(run.checkpoint_every)
                if ended or evaluates or saves:
                    self._settle(evaluates)
                if ended or saves:
                    self.checkpoints.save(self.state, self.batches.get_state(), self.shard.index)
                bar.update()
                if "loss" in self._last:  # of the step before
                    bar.set_postfix_str(f"loss {self._last['loss']:.4f}", refresh=False)
            self.checkpoints.wait()
        return self._last

    def _may_ask(self) -> bool:
        return jax.process_count() == 1 or self.step % ASKED_EVERY == 0

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _advance(self) -> None:
        waited = time.perf_counter()
        loaded = next(self.batches)
        waited = time.perf_counter() - waited
        batch = put(loaded.arrays, self.setup.mesh, self.shard)
        self.state, metrics = self._train_step(self.state, self.frozen, batch)
        self._settle()
        self._pending = (metrics, loaded, waited)
        self.step += 1

    def _settle(self, evaluates: bool = False) -> None:
        """Looks at the metrics of the last step that was launched before, and writes them down with those of the
        held-out data, if asked for. Raises OmniError if its loss is no number."""
        if self._pending is None:
            return
        (metrics, loaded, waited), self._pending = self._pending, None
        values = {name: float(value) for name, value in metrics.items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            raise self._no_number(values, loaded)
        now = time.perf_counter()
        seconds = now - self._since
        # Of all shards, which are alike; only this one's counts are known here.
        values |= {"tokens_per_second": self.shard.count * loaded.counts["tokens"] / seconds, "seconds": seconds,
                   "seconds_waiting_for_data": waited, **{f"data/{k}": v for k, v in loaded.counts.items()}}
        self._last = {"step": self.step, **values, **(self.evaluate() if evaluates else {})}
        self._since = time.perf_counter() if evaluates else now
        if self._record:
            self._record.add(self._last)

    def _no_number(self, values: dict[str, float], loaded: Loaded) -> OmniError:
        kept = self.checkpoints.latest
        told = "there is no checkpoint yet" if kept is None else f"the checkpoint of step {kept} is whole"
        more = f" and {len(loaded.names) - NAMED} more" if len(loaded.names) > NAMED else ""
        return OmniError(f"step {self.step}: the loss is {values['loss']} (gradient norm {values['grad_norm']}) on "
                         f"{', '.join(loaded.names[:NAMED])}{more}; {told}; lower the learning rate, or look at these "
                         "examples")

    def evaluate(self) -> dict[str, float]:
        """The objective over the held-out batches, by name; empty without any."""
        batches = held_out_batches(self.plan.run, self.setup.processor, self.shard[:2])
        step = functools.partial(self._eval_step, self.state.best, self.frozen)
        totals = summed(batches, step, self.setup.mesh, self.shard)
        weight = totals.pop("weight", 0.0)
        return {f"held_out/{name}": value / weight for name, value in totals.items() if weight}


def summed(batches: Iterable[Loaded], step: Callable[[Any], dict[str, jax.Array]], mesh: Mesh,
           shard: Shard | None = None) -> dict[str, float]:
    """The sums that `step` makes of each batch, over all of them, by name; empty without any."""
    totals: dict[str, float] = {}
    for loaded in batches:
        for name, value in step(put(loaded.arrays, mesh, shard)).items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether TERM or INT has come: the first waits for the step to end, a second one does not."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield lambda: bool(_anywhere(bool(asked)))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _anywhere(asked: bool) -> bool:
    """Whether any process has been asked: all must stop at the same step."""
    if jax.process_count() == 1:
        return asked
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(asked))))
