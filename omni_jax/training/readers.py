"""The forms that a record of a manifest may have, each read into messages.

`messages`: Qwen's own, media as items of the content. `sharegpt`: LLaMA-Factory's two multimodal forms. `swift`:
ms-swift's. The latter two keep media in lists beside the texts, which say `<image>`, `<video>` or `<audio>` where the
next one stands.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from omni_jax.errors import OmniError, require

ROLES = {"human": "user", "gpt": "assistant"}
PLACEHOLDER = re.compile("<(image|video|audio)>")
LISTS = {"image": "images", "video": "videos", "audio": "audios"}


def read_messages(record: Any) -> Any:
    """Of {"messages": […]}, {"conversation": […]} or a bare list; other keys are left alone. Raises OmniError."""
    if isinstance(record, list):
        return record
    found = next((record[key] for key in ("messages", "conversation") if key in _object(record)), None)
    require(isinstance(found, list), "record", "has no list of messages; put it under messages")
    return found


def read_sharegpt(record: Any) -> list[Any]:
    """Of `conversations` (from, value) or `messages` (role, content), `system`, and lists of media that must match the
    placeholders, as LLaMA-Factory wants it. Raises OmniError."""
    return _with_media(_turns(_object(record)), _media(record))


def read_swift(record: Any) -> list[Any]:
    """The same forms, or `query`, `response` and `history`. As in ms-swift, media without a placeholder lead the
    first message that is not the system's. Raises OmniError."""
    turns, media = _turns(_object(record)), _media(record)
    text = "".join(turn["content"] for turn in turns if isinstance(turn["content"], str))
    missing = "".join(f"<{kind}>" * (len(items) - text.count(f"<{kind}>")) for kind, items in media.items())
    first = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), None)
    if missing and first is not None and isinstance(turns[first]["content"], str):
        turns[first] = {**turns[first], "content": missing + turns[first]["content"]}
    return _with_media(turns, media)


READERS: dict[str, Callable[[Any], Any]] = {"messages": read_messages, "sharegpt": read_sharegpt, "swift": read_swift}


def _object(record: Any) -> Mapping[str, Any]:
    require(isinstance(record, Mapping), "record", f"is a JSON {type(record).__name__}, not an object")
    return record


def _turns(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    if isinstance(record.get("query"), str):
        pairs = [*(record.get("history") or []), (record["query"], record.get("response"))]
        turns = [turn for pair in pairs for turn in zip(("user", "assistant"), pair, strict=True)]
    else:
        found = next((record[key] for key in ("conversations", "messages", "conversation") if record.get(key)), None)
        require(isinstance(found, list), "record", "has no list under conversations or messages")
        turns = [turn for entry in found for turn in _turn(entry)]
    if record.get("system"):
        turns.insert(0, ("system", record["system"]))
    return [{"role": role, "content": content} for role, content in turns if content is not None]


def _turn(entry: Any) -> list[tuple[str, Any]]:
    if isinstance(entry, Mapping):
        if "human" in entry and "assistant" in entry:
            return [("user", entry["human"]), ("assistant", entry["assistant"])]
        for role, content in (("from", "value"), ("role", "content")):
            if role in entry and content in entry:
                return [(ROLES.get(entry[role], entry[role]), entry[content])]
    raise OmniError(f"record: {str(entry)[:60]!r} is no message; give it from and value, or role and content")


def _media(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The media of each kind; ms-swift also takes a single path, and {"path": …}."""
    media = {}
    for kind, key in LISTS.items():
        items = record.get(key) or []
        items = items if isinstance(items, list) else [items]
        media[kind] = [item["path"] if isinstance(item, Mapping) and "path" in item else item for item in items]
    return media


def _with_media(turns: list[dict[str, Any]], media: dict[str, list[Any]]) -> list[dict[str, Any]]:
    left = {kind: iter(items) for kind, items in media.items()}
    messages = [{**turn, "content": _content(turn["content"], left)} for turn in turns]
    for kind, items in media.items():
        rest = len(list(left[kind]))
        require(not rest, "record", f"its {len(items)} {LISTS[kind]} need as many <{kind}> in its texts, which have "
                                    f"{len(items) - rest}")
    return messages


def _content(content: Any, left: dict[str, Any]) -> Any:
    if not isinstance(content, str):
        return content
    items = []
    for i, piece in enumerate(PLACEHOLDER.split(content)):
        if i % 2 == 0:
            items += [{"type": "text", "text": piece}] if piece else []
            continue
        item = next(left[piece], None)
        require(item is not None, "record", f"its texts have more <{piece}> than it has {LISTS[piece]}; add the rest")
        items.append({"type": piece, piece: item})
    return items if len(items) != 1 or items[0]["type"] != "text" else content
