"""Conversations as ChatML text with media in between.

`<|im_start|>role\\n…<|im_end|>\\n` for each message, a default system message if none leads, and an open assistant
turn at the end. Media stand where they stand in the content; the processor turns them into tokens.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from omni_jax.errors import OmniError, require

DEFAULT_SYSTEM = "You are a helpful assistant."
ROLES = ("system", "user", "assistant")
KINDS = ("image", "audio", "video")
MEDIA_TOKENS = ("<|IMAGE|>", "<|AUDIO|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>", "<|audio_bos|>",
                "<|audio_eos|>")
OPENING = "<|im_start|>assistant\n"


@dataclasses.dataclass(frozen=True)
class MediaItem:
    """One picture, sound or video of a conversation: `kind` of KINDS, its `source` as given, its `options` (the
    other fields of the item) and `where` it stands, for messages."""

    kind: str
    source: Any
    options: Mapping[str, Any]
    where: str


Segment = str | MediaItem


def validate(conversation: Any) -> None:
    """Raises OmniError, naming the message by its index, if this is no conversation."""
    _messages(conversation)


def render(conversation: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """Text and media of a whole prompt, in order, without empty or adjoining texts. Raises OmniError.

    A last message by the assistant stays open, without `<|im_end|>`: the model continues it.
    """
    messages = _messages(conversation)
    return _merge([*_leading(messages), *_turns(messages)])


def render_next(messages: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """Text and media that continue a prompt whose reply has been generated, up to but without its end token."""
    return _merge(["<|im_end|>\n", *_turns(_messages(messages))])


def render_example(conversation: Sequence[Mapping[str, Any]]) -> list[tuple[Segment, bool]]:
    """Text and media of a conversation to learn from, up to the end of its last assistant turn, each with whether it is
    learnt: the texts of assistant turns and the `<|im_end|>` that closes them are.

    What the model writes is apart from what it was given, so that the two are tokenised apart, as when it generates.
    Sound of an assistant is speech to learn, not to hear, and is left out. Raises OmniError, also if nobody assists.
    """
    messages = _messages(conversation)
    last = max((i for i, (role, _) in enumerate(messages) if role == "assistant"), default=-1)
    require(last >= 0, "conversation", "has no assistant message, so there is nothing to learn; add the answer")
    pieces = [(segment, False) for segment in _leading(messages)]
    for role, content in messages[: last + 1]:
        learn = role == "assistant"
        heard = [s for s in content if not (learn and isinstance(s, MediaItem) and s.kind == "audio")]
        pieces += [(f"<|im_start|>{role}\n", False), *((s, learn and isinstance(s, str)) for s in heard),
                   ("<|im_end|>", learn), ("\n", False)]
    groups = itertools.groupby(pieces[:-1], key=lambda piece: piece[1])
    return [(segment, learn) for learn, group in groups for segment in _merge([segment for segment, _ in group])]


def spoken(conversation: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
    """The sound of each assistant turn, as {"audio": source, …options}; None for one without. Raises OmniError."""
    found: list[dict[str, Any] | None] = []
    for index, (role, content) in enumerate(_messages(conversation)):
        if role == "assistant":
            sounds = [s for s in content if isinstance(s, MediaItem) and s.kind == "audio"]
            require(len(sounds) <= 1, f"message {index}", "has several sounds; an assistant's turn is one recording")
            found.append({"audio": sounds[0].source, **sounds[0].options} if sounds else None)
    return found


def _leading(messages: list[tuple[str, list[Segment]]]) -> list[Segment]:
    return [] if messages[0][0] == "system" else [f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"]


def _turns(messages: list[tuple[str, list[Segment]]]) -> list[Segment]:
    segments: list[Segment] = []
    for role, content in messages:
        segments += [f"<|im_start|>{role}\n", *content, "<|im_end|>\n"]
    return segments[:-1] if messages[-1][0] == "assistant" else [*segments, OPENING]


def _merge(segments: list[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str) and merged and isinstance(merged[-1], str):
            merged[-1] += segment
        elif segment != "":
            merged.append(segment)
    return merged


def _messages(conversation: Any) -> list[tuple[str, list[Segment]]]:
    if isinstance(conversation, (str, bytes, Mapping)) or not isinstance(conversation, Sequence):
        raise OmniError(f"conversation: must be a list of messages, not a {type(conversation).__name__}; "
                        'write [{"role": "user", "content": "…"}]')
    if not conversation:
        raise OmniError("conversation: is empty; give at least one message")
    return [_message(message, f"message {index}") for index, message in enumerate(conversation)]


def _message(message: Any, where: str) -> tuple[str, list[Segment]]:
    if not isinstance(message, Mapping):
        raise OmniError(f"{where}: must be a dictionary with role and content, not a {type(message).__name__}")
    for key in ("role", "content"):
        if key not in message:
            raise OmniError(f"{where}: has no {key}; give it one")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise OmniError(f"{where}: unknown role {role!r}; use {_either(ROLES)}")
    if isinstance(content, str):
        return role, [_text(content, where)]
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise OmniError(f"{where}: content must be a text or a list of items, not a {type(content).__name__}")
    return role, [_item(item, f"{where}, item {index}", role == "assistant") for index, item in enumerate(content)]


def _item(item: Any, where: str, says: bool) -> Segment:
    if isinstance(item, str):
        return _text(item, where)
    if not isinstance(item, Mapping):
        raise OmniError(f"{where}: must be a dictionary with a type, not a {type(item).__name__}")
    kind = _kind(item, where)
    if kind == "text":
        if not isinstance(item.get("text"), str):
            raise OmniError(f"{where}: a text item needs a string under text")
        return _text(item["text"], where)
    key = next((key for key in (kind, f"{kind}_url") if item.get(key) is not None), None)
    if key is None and says and kind == "audio" and "codes" in item:  # speech to learn needs no file
        return MediaItem(kind, None, {k: v for k, v in item.items() if k != "type"}, where)
    if key is None:
        raise OmniError(f"{where}: a {kind} item needs its file under {kind} or {kind}_url")
    source = item[key]
    if isinstance(source, Mapping):
        if source.get("url") is None:
            raise OmniError(f"{where}: {key} is a dictionary without url; give a path or {{'url': …}}")
        source = source["url"]
    options = {k: v for k, v in item.items() if k not in ("type", kind, f"{kind}_url") and v is not None}
    return MediaItem(kind, source, options, where)


def _kind(item: Mapping[str, Any], where: str) -> str:
    """The item's type without `_url`; if it has none, the one medium whose key it has (as Qwen's own tools allow)."""
    spellings = {**{k: k for k in ("text", *KINDS)}, **{f"{k}_url": k for k in KINDS}}
    if "type" in item:
        if not isinstance(item["type"], str) or item["type"] not in spellings:
            raise OmniError(f"{where}: unknown content type {item['type']!r}; use {_either(('text', *KINDS))}")
        return spellings[item["type"]]
    kinds = {spellings[key] for key in item if key in spellings}
    if len(kinds) != 1:
        raise OmniError(f"{where}: has no type; use {_either(('text', *KINDS))}")
    return kinds.pop()


def _text(text: str, where: str) -> str:
    token = next((token for token in MEDIA_TOKENS if token in text), None)
    if token is not None:
        raise OmniError(f"{where}: the text contains {token}, which would be taken for media; remove it")
    return text


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
