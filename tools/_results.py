"""The file of an evaluation's results: a line of settings, then a line per example, written as they come."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omni_jax.errors import OmniError, require
from tools._examples import check_broken


class Results:
    """Lines by id. With a file they are kept in it: an interrupted run goes on after the last whole line."""

    def __init__(self, path: str | None, settings: dict[str, Any]):
        """Raises OmniError if the file is no such file, or was written with other settings."""
        self.lines: dict[str, dict[str, Any]] = {}
        self._file = None
        if path is None:
            return
        require(Path(path).absolute().parent.is_dir(), f"--out {path}", "its directory does not exist; create it")
        require(not Path(path).is_dir(), f"--out {path}", "is a directory; give a file")
        whole = _whole_lines(path)
        if whole:
            _check_settings(path, whole[0], settings)
            done = [_line(path, number, line) for number, line in enumerate(whole[1:], 2)]
            self.lines = {line["id"]: line for line in done if "error" not in line}  # what was broken is tried again
        try:
            self._file = open(path, "r+b" if os.path.exists(path) else "xb")  # noqa: SIM115
        except OSError as error:
            raise OmniError(f"--out {path}: cannot be written ({error.strerror})") from None
        self._file.truncate(sum(len(line) + 1 for line in whole))
        self._file.seek(0, os.SEEK_END)
        if not whole:
            self._write({"settings": settings})

    def complete(self, wanted: Sequence[Any], answer: Callable[[Sequence[Any]], Iterable[dict[str, Any]]], what: str,
                 broken: dict[str, str], max_broken: float) -> int:
        """Adds the lines that `answer` gives for those of `wanted`, each with an `id`, that have none yet; then the
        file is closed. Returns how many those were.

        Lines with an "error" go to `broken` as well, {`what` and id: sentence}. Raises OmniError if that becomes more
        than a share `max_broken` of all, of those that were broken before too.
        """
        todo, count = [each for each in wanted if each.id not in self.lines], len(wanted) + len(broken)
        try:
            for line in answer(todo) if todo else ():
                self.add(line)
                if "error" in line:
                    broken[f"{what} {line['id']}"] = line["error"]
                    check_broken(broken, count, max_broken)
        finally:
            self.close()
        return len(todo)

    def add(self, line: dict[str, Any]) -> None:
        if "error" not in line:
            self.lines[line["id"]] = line
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole_lines(path: str) -> list[bytes]:
    """Those that were written to their end."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OmniError(f"--out {path}: cannot be read ({error.strerror})") from None
    require(b"\n" in data or data[:12] == b'{"settings":'[: len(data[:12])], f"--out {path}",
            "exists and is no file of results; give another name or remove it")
    return data.split(b"\n")[:-1]


def _line(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    found = found if isinstance(found, dict) else {}
    known = isinstance(found.get("settings"), dict) if number == 1 else found.keys() & {"statistics", "error"}
    require(bool(known) and (number == 1 or "id" in found), f"--out {path}",
            f"line {number} is no line of results; give another name or remove the file")
    return found


def _check_settings(path: str, line: bytes, settings: dict[str, Any]) -> None:
    before = _line(path, 1, line)["settings"]
    for name in {**before, **settings}:
        old, new = before.get(name), settings.get(name)
        require(old == new, f"--out {path}", f"was written with {name} {old!r}, and now it is {new!r}; give the same "
                                             "settings to go on, or another --out")
