"""Batches to learn from: manifests, shuffled and mixed, read by worker processes, packed, in an order that resumes.

Every data shard reads a stream of its own: position n of it is always the same example. The state of a run is the next
position and those of the examples that wait to be packed, so it does not depend on how many workers read ahead.
"""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
import threadpoolctl
from absl import flags
from grain.experimental import ThreadPrefetchDatasetIterator
from tqdm import tqdm

from omni_jax.data.processor import Processor
from omni_jax.errors import OmniError, require
from omni_jax.training.config import DataConfig, SpecAugmentConfig, TrainConfig
from omni_jax.training.forms import Form, form_of
from omni_jax.training.manifests import Line, Manifest
from omni_jax.training.objectives import find
from omni_jax.training.packing import Read, choose, scores

STEPS_AHEAD = 2  # that wait ready while one trains
READ_AHEAD = 8  # examples that wait ready, of each worker
TOLD = 5  # broken examples that are named
ENOUGH = 100  # examples after which the share of broken ones counts

Batches = ThreadPrefetchDatasetIterator  # next() -> Loaded; get_state() -> JSON, set_state(state), close()


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One step. `arrays`: a batch (see training.batch) with a leading axis [A]; `names`: of its examples
    (manifest:line); `counts`: examples, tokens, learnt_tokens, and broken (skipped while it was made); `totals`: the
    same since the run began."""

    arrays: Any
    names: tuple[str, ...]
    counts: dict[str, int]
    totals: dict[str, int]


class Item(NamedTuple):
    """What became of one line: what was read, or the `problem` with it."""

    name: str
    read: Read | None = None
    problem: str = ""


def train_batches(config: TrainConfig, processor: Processor, shard: tuple[int, int] = (0, 1)) -> Batches:
    """The steps of data shard `shard` = (index, count), without end. Raises OmniError for manifests that cannot be read
    and settings that do not fit, and from `next` when too many examples are broken."""
    index, count = shard
    _check(config, count)
    require(len(config.data.train) > 0, "data", "train names no manifest; give at least one source")
    manifests = [Manifest(source) for source in config.data.train]
    parts = [drawn(grain.MapDataset.source(manifest).seed(config.seed + i).shuffle().repeat(), config.seed + i)
             [index::count] for i, manifest in enumerate(manifests)]
    lines = grain.MapDataset.mix(parts, [manifest.source.weight for manifest in manifests])
    epoch = -(-sum(map(len, manifests)) // count)
    return Batches(Steps(lines, epoch, config, processor, count, config.data.workers), STEPS_AHEAD)


def held_out_batches(config: TrainConfig, processor: Processor, shard: tuple[int, int] = (0, 1)) -> Iterator[Loaded]:
    """The steps of one pass over the held-out manifests in a fixed order, `config.eval_batches` at most. With several
    shards, which must take equally many, it is always that many: those after the end hold nothing to learn."""
    index, count = shard
    _check(config, count)
    config = dataclasses.replace(config, speech=dataclasses.replace(config.speech, masked=0.0),
                                 data=dataclasses.replace(config.data, spec_augment=SpecAugmentConfig()))
    manifests = [Manifest(source) for source in config.data.held_out]
    if not manifests:
        return iter(())
    lines = grain.MapDataset.concatenate([grain.MapDataset.source(manifest) for manifest in manifests])
    lines = drawn(lines.shuffle(config.seed), config.seed)[index::count]
    steps = Steps(lines, len(lines), config, processor, count, workers=0)
    padding = itertools.repeat(None) if count > 1 else ()
    taken = itertools.islice(itertools.chain(steps, padding), config.eval_batches)
    return (steps.empty() if loaded is None else loaded for loaded in taken)


class Steps(grain.DatasetIterator):
    """Packs a stream of lines (see `drawn`). `epoch`: lines of a pass over it; `shards`: among which rows are split."""

    def __init__(self, lines: grain.MapDataset, epoch: int, config: TrainConfig, processor: Processor, shards: int,
                 workers: int):
        super().__init__()
        self._data, self._workers, self._epoch = config.data, workers, epoch
        self._form = form_of(find(config.objective).form, config, processor)
        self._parts, self._rows = config.accumulate, config.batch_size // config.accumulate // shards
        self._stream = lines.map(functools.partial(read, self._form))
        self._items: grain.DatasetIterator | None = None  # of the stream, from self._next on
        self._next, self._waiting, self._broken = 0, [], []  # waiting: (position, Item), the oldest first
        self._totals = dict.fromkeys(("examples", "tokens", "learnt_tokens", "broken"), 0)

    def get_state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next": self._next, "waiting": [position for position, _ in self._waiting],
                "totals": dict(self._totals), "broken": list(self._broken)}

    def set_state(self, state: dict[str, Any]) -> None:
        require(state["epoch"] == self._epoch, "data", f"a pass over the manifests had {state['epoch']:,} examples and "
                f"now has {self._epoch:,}; restore the manifests or start a new run")
        self._close_items()
        self._next, self._totals, self._broken = state["next"], dict(state["totals"]), list(state["broken"])
        self._waiting = [(position, self._stream[position]) for position in state["waiting"]]
        for _, item in self._waiting:
            require(not item.problem, "data", f"{item.name}, which the run had read, is broken now: {item.problem}; "
                    "restore it, or start a new run")

    def close(self) -> None:
        self._close_items()
        super().close()

    def __next__(self) -> Loaded:
        before = dict(self._totals)
        self._refill()
        alike = None if self._data.pack or not self._waiting else int(self._waiting[0][1].read.cost[0])
        parts = [self._part(alike) for _ in range(self._parts)]
        items = [item for rows in parts for row in rows for item in row]
        if not items:
            raise StopIteration
        self._totals["examples"] += len(items)
        self._totals["tokens"] += sum(item.read.tokens for item in items)
        self._totals["learnt_tokens"] += sum(item.read.learnt for item in items)
        counts = {key: total - before[key] for key, total in self._totals.items()}
        return Loaded(self._arrays(parts), tuple(item.name for item in items), counts, dict(self._totals))

    def empty(self) -> Loaded:
        """A step that holds nothing."""
        counts = dict.fromkeys(self._totals, 0)
        return Loaded(self._arrays([[[]] * self._rows] * self._parts), (), counts, dict(self._totals))

    def _part(self, alike: int | None) -> list[list[Item]]:
        """The rows of one micro-batch, which share the budget of media."""
        empty, each, rows = self._form.budget(), self._form.per_row, []
        room = empty.copy()
        for _ in range(self._rows):
            self._refill()
            room[:each] = empty[:each]
            costs = np.array([item.read.cost for _, item in self._waiting], int).reshape(-1, len(room))
            chosen, room = choose(costs, room, scores(costs[:, 0], alike), len(costs) if self._data.pack else 1)
            rows.append([self._waiting[i][1] for i in chosen])
            self._waiting = [entry for i, entry in enumerate(self._waiting) if i not in chosen]
        return rows

    def _arrays(self, parts: Sequence[Sequence[Sequence[Item]]]) -> Any:
        longest = max((item.read.cost[0] for rows in parts for row in rows for item in row), default=self._data.length)
        length = self._data.length if self._data.pack else min(n for n in _lengths(self._data) if n >= longest)
        batches = [self._form.to_batch([[item.read.example for item in row] for row in rows], length)
                   for rows in parts]
        return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)

    def _refill(self) -> None:
        if self._items is None:
            self._items = iter(_read_ahead(self._stream[self._next:], self._workers))
        while len(self._waiting) < self._data.window and (item := next(self._items, None)) is not None:
            if item.problem:
                self._skip(item)
            else:
                self._waiting.append((self._next, item))
            self._next += 1
            self._check_broken()

    def _skip(self, item: Item) -> None:
        self._totals["broken"] += 1
        if len(self._broken) < TOLD:
            self._broken.append(f"{item.name}: {item.problem}")
            tqdm.write(f"skipped {self._broken[-1]}", file=sys.stderr)

    def _check_broken(self) -> None:
        broken, most = self._totals["broken"], self._data.max_broken
        if self._next >= min(ENOUGH, self._epoch) and (broken > most * self._next or broken == self._next):
            raise OmniError(f"data: {broken:,} of {self._next:,} examples are broken, more than data.max_broken {most} "
                            f"allows; mend them, first {'; '.join(self._broken)}")

    def _close_items(self) -> None:
        if self._items is not None:
            self._items.close()
            self._items = None


def drawn(lines: grain.MapDataset, seed: int) -> grain.MapDataset:
    """Lines, each with a number that its example's randomness hangs on: before they are split among data shards, so
    that it is the same however many there are."""
    return lines.random_map(_numbered, seed=seed)


def _numbered(line: Line, rng: np.random.Generator) -> tuple[Line, int]:
    return line, int(rng.integers(1 << 63))


def read(form: Form, line_and_seed: tuple[Line, int]) -> Item:
    """The example of one line, or what is wrong with it."""
    line, seed = line_and_seed
    try:
        return Item(line.name, form.read(line, np.random.default_rng(seed)))
    except OmniError as error:
        return Item(line.name, problem=str(error))
    except Exception as error:  # one odd file must not end a run of days; too many of them will
        return Item(line.name, problem=f"{type(error).__name__}: {error}")


def _read_ahead(stream: grain.MapDataset, workers: int) -> grain.IterDataset:
    threads = 1 if workers else min(4, os.cpu_count() or 1)
    items = stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD))
    if not workers:
        return items
    if not flags.FLAGS.is_parsed():  # grain's own flags, which its workers look at, keep their defaults
        flags.FLAGS.mark_as_parsed()
    return items.mp_prefetch(grain.MultiprocessingOptions(workers, per_worker_buffer_size=READ_AHEAD), _start_worker)


def _start_worker(index: int, count: int) -> None:
    """A worker must not take the accelerator from the training process, should anything in it start JAX, and leaves
    the other cores to the other workers."""
    jax.config.update("jax_platforms", "cpu")
    threadpoolctl.threadpool_limits(1)


def _lengths(data: DataConfig) -> tuple[int, ...]:
    return (*data.lengths, data.length)


def _check(config: TrainConfig, shards: int) -> None:
    data, need = config.data, lambda condition, sentence: require(condition, "data", sentence)
    need(config.batch_size % (config.accumulate * shards) == 0, f"batch_size {config.batch_size} must be a multiple of "
         f"accumulate {config.accumulate} times the {shards} processes that load data")
    need(max(_lengths(data)) == data.length > 0, f"lengths {data.lengths} must not be above length {data.length}")
    need(data.window >= 1, f"window {data.window} must be 1 or more")
    need(data.pack or shards == 1 or set(_lengths(data)) == {data.length},
         f"lengths {data.lengths} would differ among {shards} processes; leave them out or set pack=True")
