"""What the makers of examples share: their randomness, what is held out, and the processes that write them."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.weights.files import progress_bar, whole_directory

TRAIN, HELD_OUT = "train", "held_out"
HELD_OUT_SHARE = 5  # one combination in so many
NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
Record = dict[str, Any]
# (rng, part, id, folder) -> a line for each manifest that has one of this example: of the part itself (""), and others.
Make = Callable[[np.random.Generator, str, str, Path], dict[str, Record]]

_call: Callable[[Any], Any] | None = None  # of a worker process


def is_held_out(*combination: object) -> bool:
    """Whether this combination (a thing and a colour, …) is never trained on. The same in every run and on every
    machine."""
    text = "|".join(map(str, combination))
    return int.from_bytes(hashlib.blake2s(text.encode(), digest_size=4).digest()) % HELD_OUT_SHARE == 0


def choose(rng: np.random.Generator, part: str, what: str, *axes: Any) -> tuple:
    """One value of each axis (sequences; numpy's choice would make strings of them), together of this part's."""
    while True:
        chosen = tuple(axis[rng.integers(len(axis))] for axis in axes)
        if is_held_out(what, *chosen) == (part == HELD_OUT):
            return chosen


def pick(rng: np.random.Generator, values: Any) -> Any:
    return values[rng.integers(len(values))]


def conversation(name: str, kind: str, style: str | None, shown: list[Record], question: str, answer: str) -> Record:
    """A line of a manifest. `shown`: the items of the content before the question, which may be empty."""
    return {"id": name, "kind": kind, **({"style": style} if style else {}), "messages": turn(shown, question, answer)}


def turn(shown: list[Record], question: str, answer: str) -> list[Record]:
    """The two messages of a question, which may be empty, and its answer."""
    asked = [{"type": "text", "text": question}] if question else []
    return [{"role": "user", "content": [*shown, *asked]}, {"role": "assistant", "content": as_sentence(answer)}]


def as_sentence(text: str) -> str:
    """With a large first letter and a mark at its end."""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def write_all(out: Path, make: Make, subfolder: str, counts: dict[str, int], seed: int, workers: int) -> Record:
    """The examples of all parts (part -> how many): OUT/{part}.jsonl, and OUT/{other}_{part}.jsonl of other lines about
    them; media go to OUT/`subfolder`.

    An example's randomness hangs on the seed, its part and its place alone. Returns what there is, by part and kind.
    """
    started = time.perf_counter()
    told: Record = {"directory": str(out)}
    with whole_directory(out) as folder:
        (folder / subfolder).mkdir()
        for number, (part, count) in enumerate(counts.items()):
            tasks = [((seed, number, i), part, f"{part}-{i:05d}", folder) for i in range(count)]
            kinds: Counter[str] = Counter()
            with contextlib.ExitStack() as stack:
                bar = stack.enter_context(progress_bar(count, f"{out.name}, {part}", True, ""))
                file = functools.cache(lambda name: stack.enter_context((folder / f"{name}.jsonl").open("w")))
                for lines in spread(Seeded(make), tasks, workers):
                    for other, line in lines.items():
                        file(f"{other}_{part}" if other else part).write(json.dumps(line) + "\n")
                    kinds[next(iter(lines.values()))["kind"]] += 1
                    bar.update()
            told[part] = dict(sorted(kinds.items()))
        told["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {**told, "seconds": round(time.perf_counter() - started, 1)}


@dataclasses.dataclass(frozen=True)
class Seeded:
    """Makes an example from its seed."""

    make: Make

    def __call__(self, task: tuple[tuple[int, ...], str, str, Path]) -> dict[str, Record]:
        key, part, name, folder = task
        return self.make(np.random.default_rng(np.random.SeedSequence(key)), part, name, folder)


def spread(call: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    """What `call` returns for each of the tasks, in their order. It is sent to each of the processes once, so that it
    may keep what it has read; with one worker it stays in this process."""
    if workers < 2:
        yield from map(call, tasks)
        return
    # Spawned: a fork would copy whatever threads its parent happens to run.
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (call,)) as pool:
        yield from pool.map(_one, tasks, chunksize=16)


def _start(call: Callable[[Any], Any]) -> None:
    global _call
    _call = call


def _one(task: Any) -> Any:
    assert _call is not None
    return _call(task)
