"""Runs a command and watches its memory from outside."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_PERIOD = 0.02  # seconds between two looks at a process
_CHILDREN_EVERY = 10  # looks between two searches for its children, which read the whole of /proc


@dataclasses.dataclass(frozen=True)
class Watched:
    """What a command printed (its last line, JSON), how long it took, and its peaks in bytes, children included.

    anonymous: RssAnon, memory of its own, as opposed to pages of mapped files, which the system can drop.
    """

    summary: dict
    seconds: float
    anonymous: int
    resident: int


def run(*words: object) -> Watched:
    """Runs `python -m WORDS`, which must succeed, on one device (pytest's own process has several)."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=ROOT, env=environment)
    peaks: dict[str, int] = {"RssAnon": 0, "VmRSS": 0}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join()
    assert process.returncode == 0, f"status {process.returncode}, peaks {peaks}: {errors[-3000:]}"
    return Watched(json.loads(output.splitlines()[-1]), seconds, peaks["RssAnon"], peaks["VmRSS"])


def require_memory(gigabytes: float) -> None:
    """Skips the test where less memory is available just now."""
    available = _fields(Path("/proc/meminfo"))["MemAvailable"] / 1e9
    if available < gigabytes:
        pytest.skip(f"needs {gigabytes:g} GB of memory and {available:.1f} GB are available")


def report(name: str, **figures: object) -> None:
    """One JSON line, to be seen with -s."""
    rounded = {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}
    print("\n" + json.dumps({"check": name, **rounded}), flush=True)


def _watch(process: subprocess.Popen, peaks: dict[str, int]) -> None:
    looks = 0
    while process.poll() is None:
        if looks % _CHILDREN_EVERY == 0:
            family = _family(process.pid)
        statuses = [_fields(Path(f"/proc/{pid}/status")) for pid in family]
        for field in peaks:
            peaks[field] = max(peaks[field], sum(status.get(field, 0) for status in statuses))
        looks += 1
        time.sleep(_PERIOD)


def _family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {int(path.name): _fields(path / "status").get("PPid") for path in Path("/proc").glob("[0-9]*")}
    family = [root]
    for pid in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of `Name: value [kB]` lines, in bytes where a unit is given; empty if it has gone."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    found = re.findall(r"^(\w+):\s+(\d+)( kB)?$", text, re.MULTILINE)
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in found}
