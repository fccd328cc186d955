import pytest

from omni_jax.data.chat_template import MediaItem, render, render_example, render_next, validate
from omni_jax.errors import OmniError
from tests.data.media_files import one_sentence

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER = {"role": "user", "content": "Hi"}


def test_default_system_message():
    assert render([USER]) == [SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]


def test_own_system_message():
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render([{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, USER]) == [text]


def test_several_turns_and_an_open_last_turn():
    turns = [USER, {"role": "assistant", "content": "Hello"}, USER, {"role": "assistant", "content": "Well,"}]
    assert render(turns) == [SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
                             "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell,"]


def test_render_next_continues_the_same_text():
    first, reply, second = [USER], {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"}
    assert render(first)[0] + "Hello" + render_next([second])[0] == render([*first, reply, second])[0]


def test_what_an_example_learns():
    """The answers with their end marks; the sound of an answer is not heard, and nothing after the last one matters."""
    spoken = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}, {"type": "audio", "audio": "a.wav"}]}
    seen = {"role": "user", "content": [{"type": "image", "image": "a.png"}, "Why?"]}
    assert render_example([USER, spoken, seen, {"role": "assistant", "content": "\nSo."}, USER]) == [
        (SYSTEM + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False), ("Hello<|im_end|>", True),
        ("\n<|im_start|>user\n", False), (MediaItem("image", "a.png", {}, "message 2, item 0"), False),
        ("Why?<|im_end|>\n<|im_start|>assistant\n", False), ("\nSo.<|im_end|>", True)]


def test_nothing_to_learn():
    with pytest.raises(OmniError) as error:
        render_example([USER])
    one_sentence(error, "conversation", "assistant")


def test_media_stand_where_they_stand():
    content = [{"type": "image", "image": "a.png", "max_pixels": 3}, {"type": "text", "text": "and"},
               {"type": "audio", "audio": b"x"}, {"type": "video", "video": ["f"], "fps": 2, "nframes": None}]
    segments = render([{"role": "user", "content": content}])
    assert segments == [
        SYSTEM + "<|im_start|>user\n", MediaItem("image", "a.png", {"max_pixels": 3}, "message 0, item 0"), "and",
        MediaItem("audio", b"x", {}, "message 0, item 2"), MediaItem("video", ["f"], {"fps": 2}, "message 0, item 3"),
        "<|im_end|>\n<|im_start|>assistant\n"]


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
@pytest.mark.parametrize("item", [
    {"type": "K", "K": "f"}, {"type": "K_url", "K_url": "f"}, {"type": "K", "K_url": "f"}, {"type": "K_url", "K": "f"},
    {"type": "K_url", "K_url": {"url": "f"}}, {"K": "f"}, {"K_url": "f"}])
def test_spellings(kind, item):
    item = {k.replace("K", kind): v.replace("K", kind) if isinstance(v, str) else v for k, v in item.items()}
    assert render([{"role": "user", "content": [item]}])[1] == MediaItem(kind, "f", {}, "message 0, item 0")


@pytest.mark.parametrize(("conversation", "words"), [
    ("Hi", ["conversation", "str"]),
    ({"role": "user", "content": "Hi"}, ["conversation"]),
    (None, ["conversation"]),
    ([], ["conversation", "empty"]),
    ([USER, "Hi"], ["message 1"]),
    ([USER, {"content": "Hi"}], ["message 1", "role"]),
    ([{"role": "user"}], ["message 0", "content"]),
    ([USER, {"role": "robot", "content": "Hi"}], ["message 1", "robot", "assistant"]),
    ([{"role": ["user"], "content": "Hi"}], ["message 0", "role"]),
    ([{"role": "user", "content": 3}], ["message 0", "int"]),
    ([{"role": "user", "content": [{"type": "smell", "smell": "x"}]}], ["message 0, item 0", "smell", "video"]),
    ([{"role": "user", "content": [{"type": "image"}]}], ["message 0, item 0", "image_url"]),
    ([{"role": "user", "content": [{"type": "text"}]}], ["message 0, item 0", "text"]),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], ["message 0, item 0", "url"]),
    ([{"role": "user", "content": [{"image": "a", "text": "b"}]}], ["message 0, item 0", "type"]),
    ([{"role": "user", "content": [7]}], ["message 0, item 0"]),
    ([USER, {"role": "user", "content": "see <|IMAGE|>"}], ["message 1", "<|IMAGE|>"]),
    ([{"role": "user", "content": [{"type": "text", "text": "<|audio_eos|>"}]}], ["item 0", "<|audio_eos|>"]),
])
def test_bad_conversations(conversation, words):
    with pytest.raises(OmniError) as error:
        validate(conversation)
    one_sentence(error, *words)
