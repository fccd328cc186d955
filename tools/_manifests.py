"""What commands share that write a manifest from another."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_jax.errors import require
from omni_jax.training.manifests import Line


def check_out(path: Path, where: str) -> None:
    """Raises OmniError if a new manifest could not be written there; asked before long work."""
    require(not path.exists() and path.absolute().parent.is_dir(), where,
            "exists already, or its directory does not; give another name")


def relocated(line: Line, folder: Path) -> dict[str, Any]:
    """A line's record as {"messages": […]}, whose media paths start from `folder`. What else a record of messages holds
    is kept. Raises OmniError."""
    there = Path(os.path.relpath(line.folder.absolute(), folder.absolute()))
    record, messages = line.record(), dataclasses.replace(line, folder=there).conversation()
    others = record if line.form == "messages" and isinstance(record, Mapping) else {}
    return {**{key: value for key, value in others.items() if key != "conversation"}, "messages": messages}


def json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
