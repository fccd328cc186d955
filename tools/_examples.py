"""The examples of an evaluation: lines of a manifest, checked before a model is loaded."""

import dataclasses
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omni_jax.data import chat_template
from omni_jax.errors import OmniError, require
from omni_jax.training.metrics import METRICS, Answer
from omni_jax.training.texts import LETTERS


@dataclasses.dataclass(frozen=True)
class Example:
    """question: the messages before the reply. answer: what is known of the right one. size: (width, height) of the
    picture on which its boxes were drawn, None: as the model sees it."""

    id: str
    question: tuple[dict[str, Any], ...]
    answer: Answer
    metrics: tuple[str, ...]
    size: tuple[float, float] | None = None


def read(manifest: str, metrics: Sequence[str] = (), system: str | None = None,
         limit: int | None = None) -> tuple[list[Example], dict[str, str]]:
    """The first `limit` examples, and what is wrong with those that cannot be used: {where: sentence}.

    metrics: instead of those that the lines name. system: of conversations without a system message. Raises OmniError.
    """
    examples: dict[str, Example] = {}
    broken: dict[str, str] = {}
    folder = Path(manifest).parent
    for number, line in _lines(manifest, limit):
        try:
            example = _example(_object(line), str(number), tuple(metrics), system, folder)
            require(example.id not in examples, f"id {example.id}", "stands twice; give each line its own")
            examples[example.id] = example
        except OmniError as error:
            broken[f"line {number}"] = str(error)
    require(bool(examples or broken), manifest, "holds no example")
    return list(examples.values()), broken


def check_metrics(names: Sequence[str]) -> None:
    """Raises OmniError for an unknown metric, with the nearest."""
    for name in names:
        near = difflib.get_close_matches(str(name), METRICS, 1, 0.0)
        require(name in METRICS, "metric", f"there is no {name!r}, did you mean {near[0] if near else ''}? "
                                           f"There are {', '.join(METRICS)}")


def _lines(manifest: str, limit: int | None) -> Iterator[tuple[int, str]]:
    try:
        with open(manifest, encoding="utf-8", errors="surrogateescape") as file:
            filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            for count, each in enumerate(filled):
                if limit is not None and count >= limit:
                    return
                yield each
    except OSError as error:
        raise OmniError(f"{manifest}: cannot be read ({error.strerror}); give a JSONL file") from None


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OmniError(f"is not JSON ({error})") from None
    require(isinstance(found, dict), "line", "must be a JSON object with messages")
    return found


def _example(line: dict[str, Any], number: str, metrics: tuple[str, ...], system: str | None, folder: Path) -> Example:
    chat_template.validate(line.get("messages"))
    messages = [_with_paths(message, folder) for message in line["messages"]]
    reference = _text(messages.pop()) if messages[-1]["role"] == "assistant" else None
    require(bool(messages), "messages", "hold no question before the assistant's reply")
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    references = _strings(line, "answers") or (() if reference is None else (reference,))
    choices = _strings(line, "choices")
    require(len(choices) <= len(LETTERS), "choices", f"are more than {len(LETTERS)}")
    answer = Answer(references=references, choices=choices, boxes=_boxes(line),
                    tolerance=_numbers(line.get("tolerance", 0), (), "tolerance"))
    size = None if line.get("size") is None else _numbers(line["size"], (2,), "size")
    require(size is None or min(size) > 0, "size", "must be the width and height of a picture in pixels")
    wanted = metrics or _strings(line, "metric") or (("choice",) if choices else ("exact",))
    check_metrics(wanted)
    _try(answer, wanted)
    return Example(str(line.get("id", number)), tuple(messages), answer, wanted, size)


def _try(answer: Answer, metrics: Sequence[str]) -> None:
    """Raises OmniError if the example lacks what its metrics want; better now than after the reply."""
    tried = dataclasses.replace(answer, choice_losses=(0.0,) * len(answer.choices))
    for name in metrics:
        for field in {METRICS[name].wants, "references"} - ({"references"} if METRICS[name].wants == "boxes" else set()):
            wording = "a reference: a last message by the assistant, or answers" if field == "references" else field
            require(bool(getattr(answer, field)), name, f"wants {wording}")
        METRICS[name].statistics(tried)


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    texts = [item if isinstance(item, str) else item.get("text") for item in content]
    return "".join(text for text in texts if isinstance(text, str))  # spoken replies have their sound beside the text


def _with_paths(message: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths of media count from the manifest."""
    if isinstance(message["content"], str):
        return message
    return {**message, "content": [_with_path(item, folder) for item in message["content"]]}


def _with_path(item: Any, folder: Path) -> Any:
    if not isinstance(item, dict):
        return item
    keys = [key for kind in chat_template.KINDS for key in (kind, f"{kind}_url") if isinstance(item.get(key), str)]
    return {**item, **{key: item[key] if ":" in item[key] else str(folder / item[key]) for key in keys}}


def _strings(line: dict[str, Any], field: str) -> tuple[str, ...]:
    given = line.get(field) or ()
    given = (given,) if isinstance(given, str) else given
    require(isinstance(given, (list, tuple)) and all(isinstance(each, str) for each in given), field,
            "must be a text or a list of texts")
    return tuple(given)


def _boxes(line: dict[str, Any]) -> tuple:
    given = line.get("boxes") or []
    require(isinstance(given, list), "boxes", "must be a list of [x1, y1, x2, y2]")
    found = tuple(_numbers(box, (4,), "boxes") for box in given)
    require(all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in found), "boxes", "must have x1 < x2 and y1 < y2")
    return found


def _numbers(given: Any, shape: tuple[int, ...], field: str) -> Any:
    """A number, or a tuple of shape[0] numbers."""
    if shape:
        require(isinstance(given, list) and len(given) == shape[0], field, f"must be {shape[0]} numbers, not {given!r}")
        return tuple(_numbers(each, (), field) for each in given)
    require(type(given) in (int, float) and abs(given) < float("inf"), field, f"{given!r} is not a number")
    return float(given)
