"""The examples of an evaluation: lines of a manifest, checked before a model is loaded."""

import dataclasses
import difflib
import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from omni_jax.data import chat_template
from omni_jax.data.batch import Prompt
from omni_jax.errors import OmniError, require
from omni_jax.training.boxes import parse_boxes
from omni_jax.training.config import Source
from omni_jax.training.manifests import Line, Manifest
from omni_jax.training.metrics import METRICS, Answer
from omni_jax.training.texts import LETTERS

MEDIA = ("given", "swapped", "none", "mistimed")
MISTIMED = 8.0  # at most so many times too slow, or too fast


@dataclasses.dataclass(frozen=True)
class Example:
    """question: the messages before the reply. answer: what is known of the right one. size: (width, height) of the
    picture on which its boxes were drawn, None: as the model sees it. speaker: named for the reply. kind: whose
    figures are given by themselves as well."""

    id: str
    question: tuple[dict[str, Any], ...]
    answer: Answer
    metrics: tuple[str, ...]
    size: tuple[float, float] | None = None
    speaker: str | None = None
    kind: str | None = None


def read(source: Source, metrics: Sequence[str] = (), system: str | None = None,
         limit: int | None = None, say: bool = False) -> tuple[list[Example], dict[str, str]]:
    """The first `limit` examples of a manifest, and what is wrong with those that cannot be used: {where: sentence}.

    metrics: instead of those that the lines name. system: of conversations without a system message. say: the
    first reference is to be said as the reply, which judges nobody's words. Raises OmniError.
    """
    examples: dict[str, Example] = {}
    broken: dict[str, str] = {}
    for line in itertools.islice(Manifest(source), limit):
        try:
            example = _example(line, tuple(metrics), system)
            if say:
                _check_said(example)
            require(example.id not in examples, f"id {example.id}", "stands twice; give each line its own")
            examples[example.id] = example
        except OmniError as error:
            broken[line.name] = str(error)
    return list(examples.values()), broken


def with_media(examples: Sequence[Example], how: str) -> list[Example]:
    """The examples with the media that they are asked about as one of MEDIA: "given" ("mistimed": they are, and
    `mistimed` does the rest); "none": the questions alone; or "swapped": those of another example of the same kind with
    as many. What is right then was known without looking or listening. Raises OmniError if an example has no other."""
    if how in ("given", "mistimed"):
        return list(examples)
    others = _media_of_others(examples) if how == "swapped" else {}
    return [dataclasses.replace(example, question=_replaced(example.question, others.get(example.id)))
            for example in examples]


def mistimed(prompt: Prompt, seed: int) -> Prompt:
    """The same frames of its videos at other times, as TMRoPE counts it, than the sounds that came with them."""
    rng = np.random.default_rng(seed)
    times = [picture.seconds_per_grid * MISTIMED ** rng.uniform(-1, 1) for picture in prompt.pictures]
    return dataclasses.replace(prompt, pictures=tuple(
        dataclasses.replace(picture, seconds_per_grid=seconds)
        for picture, seconds in zip(prompt.pictures, times, strict=True)))


def _media_of_others(examples: Sequence[Example]) -> dict[str, list[dict[str, Any]]]:
    """{id: the media of the next example of its kind with as many}."""
    groups: dict[Any, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.kind, tuple(str(item.get("type")) for item in _media(example))].append(example)
    for (_, types), own in groups.items():
        require(not types or len(own) > 1, f"id {own[0].id}",
                "has no other example of its kind to swap media with; give more of them")
    return {example.id: _media(other) for own in groups.values()
            for example, other in zip(own, [*own[1:], own[0]], strict=True)}


def _media(example: Example) -> list[dict[str, Any]]:
    contents = [message["content"] for message in example.question if not isinstance(message["content"], str)]
    return [item for content in contents for item in content if _is_medium(item)]


def _replaced(question: Sequence[dict[str, Any]], media: Sequence[dict[str, Any]] | None) -> tuple:
    """The messages with these media in the places of theirs; None: without any."""
    left, messages = iter(media or ()), []
    for message in question:
        if not isinstance(content := message["content"], str):
            kept = [item for item in content if media is not None or not _is_medium(item)]
            message = {**message, "content": [next(left) if _is_medium(item) else item for item in kept]}
        messages.append(message)
    return tuple(messages)


def _is_medium(item: Any) -> bool:
    return isinstance(item, dict) and not isinstance(item.get("text"), str)


def check_broken(broken: dict[str, str], count: int, most: float) -> None:
    """Raises OmniError if more than a share `most` of `count` examples is broken: {where: sentence}."""
    if len(broken) > most * count:
        shown = "; ".join(f"{where}: {sentence}" for where, sentence in list(broken.items())[:3])
        more = "; …" if len(broken) > 3 else ""
        raise OmniError(f"{len(broken)} of {count} examples are broken, more than --max-broken {most} allows: "
                        f"{shown}{more}")


def check_metrics(names: Sequence[str]) -> None:
    """Raises OmniError for an unknown metric, with the nearest."""
    for name in names:
        near = difflib.get_close_matches(str(name), METRICS, 1, 0.0)
        require(name in METRICS, "metric", f"there is no {name!r}, did you mean {''.join(near)!r}? "
                                           f"There are {', '.join(METRICS)}")


def _example(line: Line, metrics: tuple[str, ...], system: str | None) -> Example:
    messages, record = line.conversation(), line.record()
    chat_template.validate(messages)
    fields = record if isinstance(record, dict) else {}
    last = messages.pop() if messages[-1]["role"] == "assistant" else None
    require(bool(messages), "messages", "hold no question before the assistant's reply")
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    reference, sound = (None, {}) if last is None else (text_of(last), sound_of(last))
    answer = _answer(fields, reference, sound)
    size = None if fields.get("size") is None else _numbers(fields["size"], (2,), "size")
    require(size is None or min(size) > 0, "size", "must be the width and height of a picture in pixels")
    wanted = metrics or _strings(fields, "metric") or (("choice",) if answer.choices else ("exact",))
    check_metrics(wanted)
    _try(answer, wanted)
    name = fields.get("id", line.name.rpartition(":")[2])
    kind = fields.get("kind")
    require(kind is None or isinstance(kind, str), "kind", "must be a text")
    return Example(str(name), tuple(map(unspoken, messages)), answer, wanted, size, sound.get("speaker"), kind)


def _check_said(example: Example) -> None:
    for name in example.metrics:
        require(METRICS[name].needs != "reply", name, "judges the model's own words, which --say replaces; drop either")
    require(bool(example.answer.references), "--say", "wants a last message by the assistant, or answers")


def _answer(fields: dict[str, Any], reference: str | None, sound: dict[str, Any]) -> Answer:
    references = _strings(fields, "answers") or (() if reference is None else (reference,))
    choices = _strings(fields, "choices")
    require(len(choices) <= len(LETTERS), "choices", f"are more than {len(LETTERS)}")
    return Answer(references=references, choices=choices, boxes=_boxes(fields) or tuple(parse_boxes(reference or "")),
                  tolerance=_numbers(fields.get("tolerance", 0), (), "tolerance"),
                  recording=sound.get("audio", ""))


def _try(answer: Answer, metrics: Sequence[str]) -> None:
    """Raises OmniError if the example lacks what its metrics want; better now than after the reply."""
    tried = dataclasses.replace(answer, choice_losses=(0.0,) * len(answer.choices))
    for name in metrics:
        for field in METRICS[name].wants:
            more = ": a last message by the assistant, or answers" if field == "references" else ""
            require(bool(getattr(answer, field)), name, f"wants {field}{more}")
        METRICS[name].statistics(tried)


def text_of(message: dict[str, Any]) -> str:
    """The text of a turn; a spoken one has its sound beside it."""
    content = message["content"]
    if isinstance(content, str):
        return content
    texts = [item if isinstance(item, str) else item.get("text") for item in content]
    return "".join(text for text in texts if isinstance(text, str))


def sound_of(message: dict[str, Any]) -> dict[str, Any]:
    """The item of a turn's sound, its file under "audio" however that was spelled; empty if it has none."""
    content = message["content"]
    item = next((item for item in content if _is_sound(item)), {}) if not isinstance(content, str) else {}
    if item.get("audio_url") is None:
        return item
    source = item["audio_url"]
    source = source.get("url") if isinstance(source, dict) else source
    return {**{key: value for key, value in item.items() if key != "audio_url"}, "type": "audio", "audio": source}


def unspoken(message: dict[str, Any]) -> dict[str, Any]:
    """A turn without the sound of an assistant, which is speech to learn and not to hear."""
    if message["role"] != "assistant" or isinstance(message["content"], str):
        return message
    return {**message, "content": [item for item in message["content"] if not _is_sound(item)]}


def _is_sound(item: Any) -> bool:
    named = isinstance(item, dict) and item.keys() & {"audio", "audio_url", "codes"}
    return bool(named) and item.get("type", "audio") in ("audio", "audio_url")


def _strings(fields: dict[str, Any], field: str) -> tuple[str, ...]:
    given = fields.get(field) or ()
    given = (given,) if isinstance(given, str) else given
    require(isinstance(given, (list, tuple)) and all(isinstance(each, str) for each in given), field,
            "must be a text or a list of texts")
    return tuple(given)


def _boxes(fields: dict[str, Any]) -> tuple:
    given = fields.get("boxes") or []
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
