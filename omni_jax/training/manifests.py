"""JSONL manifests of conversations: one record a line, read by byte offset, so that big ones are never held in memory.

Media paths are relative to the manifest's folder.
"""

import dataclasses
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.data.chat_template import KINDS
from omni_jax.errors import OmniError, require
from omni_jax.training.config import Source
from omni_jax.training.readers import READERS


@dataclasses.dataclass(frozen=True)
class Line:
    """One record of a manifest. `name`: file and line, for messages."""

    name: str
    text: bytes
    form: str
    folder: Path

    def conversation(self) -> list[Any]:
        """Its messages, as the chat template takes them. Raises OmniError."""
        return located(READERS[self.form](self.record()), self.folder)

    def record(self) -> Any:
        """The JSON value of the line. Raises OmniError."""
        try:
            return json.loads(self.text)
        except ValueError as error:  # also of bytes that are no UTF-8
            raise OmniError(f"is not valid JSON ({error}); write one record a line") from None
        except RecursionError:
            raise OmniError("is nested too deeply; write one record a line") from None


class Manifest(Sequence[Line]):
    """The lines of one manifest, blank ones left out. Raises OmniError if there is no such file or no line in it."""

    def __init__(self, source: Source):
        self.source, self.path = source, Path(source.manifest)
        starts, numbers, offset = array("q"), array("q"), 0
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        starts.append(offset)
                        numbers.append(number)
                    offset += len(line)
        except OSError as error:
            raise OmniError(f"{self.path}: cannot be read ({error.strerror}); check the manifest's path") from None
        require(len(starts) > 0, str(self.path), "is empty; write one conversation a line")
        self._starts, self._numbers = np.array(starts), np.array(numbers)
        require(self[0].text.strip() != b"[", str(self.path),
                f"is one JSON array, not JSONL; convert it with: jq -c '.[]' {self.path.name}")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Line:
        with open(self.path, "rb") as file:
            file.seek(self._starts[index])
            text = file.readline()
        return Line(f"{self.path}:{self._numbers[index]}", text, self.source.form, self.path.parent)


def located(messages: Any, folder: Path) -> Any:
    """Messages whose relative media paths start from `folder`; whatever is no message stays as it is."""
    if not isinstance(messages, list):
        return messages
    return [{**m, "content": [_located_item(item, folder) for item in m["content"]]}
            if isinstance(m, Mapping) and isinstance(m.get("content"), list) else m for m in messages]


def _located_item(item: Any, folder: Path) -> Any:
    if not isinstance(item, Mapping):
        return item
    keys = [key for kind in KINDS for key in (kind, f"{kind}_url") if key in item]
    return {**item, **{key: _located(item[key], folder) for key in keys}}


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, list):  # the frames of a video
        return [_located(frame, folder) for frame in value]
    if isinstance(value, Mapping) and "url" in value:
        return {**value, "url": _located(value["url"], folder)}
    if not isinstance(value, str) or not value or "://" in value or value.startswith("data:"):
        return value
    return str(folder / value)
