import json

import pytest

from omni_jax.errors import OmniError
from omni_jax.training.config import Source
from omni_jax.training.manifests import Manifest
from omni_jax.training.readers import read_messages, read_sharegpt, read_swift
from tests.data.media_files import one_sentence

ASK, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PICTURE, SOUND = {"type": "image", "image": "a.png"}, {"type": "audio", "audio": "a.wav"}


def text(words):
    return {"type": "text", "text": words}


def test_lines_are_found_by_their_number(tmp_path):
    """Blank lines are passed over but counted, and a line may lack its end."""
    path = tmp_path / "m.jsonl"
    path.write_bytes("\n".join(["", json.dumps([ASK]), "  ", json.dumps({"id": 7, "messages": [ANSWER]}),
                                '{"messages": [“}', json.dumps({"conversation": [ASK, ANSWER]})]).encode())
    manifest = Manifest(Source(str(path)))
    assert [line.name for line in manifest] == [f"{path}:{n}" for n in (2, 4, 5, 6)]
    assert [manifest[i].conversation() for i in (0, 1, 3)] == [[ASK], [ANSWER], [ASK, ANSWER]]
    with pytest.raises(OmniError) as error:
        manifest[2].conversation()
    one_sentence(error, "JSON", "one record a line")


def test_media_are_relative_to_the_manifest(tmp_path):
    content = [PICTURE, {"type": "video", "video": ["f/1.png", "/f/2.png"]}, {"audio": "data:audio/wav;base64,AA"},
               {"type": "image_url", "image_url": {"url": "file:///b.png"}}, {"image_url": {"url": "b.png"}}, "a.png"]
    (tmp_path / "m.jsonl").write_text(json.dumps([{"role": "user", "content": content}, ASK]))
    messages = Manifest(Source(str(tmp_path / "m.jsonl")))[0].conversation()
    assert messages[1] == ASK and messages[0]["content"] == [
        {**PICTURE, "image": f"{tmp_path}/a.png"}, {"type": "video", "video": [f"{tmp_path}/f/1.png", "/f/2.png"]},
        *content[2:4], {"image_url": {"url": f"{tmp_path}/b.png"}}, "a.png"]


@pytest.mark.parametrize(("content", "words"), [
    (None, ["cannot be read", "path"]), ("\n \n", ["is empty"]), ("[\n{}\n]\n", ["JSON array", "jq"])])
def test_no_manifest(tmp_path, content, words):
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OmniError) as error:
        Manifest(Source(str(path)))
    one_sentence(error, path, *words)


def test_sharegpt():
    record = {"conversations": [{"from": "human", "value": "<image>What <audio>is it?"}, {"from": "gpt", "value": "A."},
                                {"from": "human", "value": "<image>"}, {"from": "gpt", "value": "B."}],
              "system": "Be brief.", "images": ["a.png", "b.png"], "audios": ["a.wav"], "other": 3}
    expected = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": [PICTURE, text("What "), SOUND, text("is it?")]},
                {"role": "assistant", "content": "A."},
                {"role": "user", "content": [{"type": "image", "image": "b.png"}]},
                {"role": "assistant", "content": "B."}]
    assert read_sharegpt(record) == expected
    turns = [{"role": {"human": "user", "gpt": "assistant"}[t["from"]], "content": t["value"]}
             for t in record.pop("conversations")]
    assert read_sharegpt({"messages": [expected[0], *turns], **record, "system": ""}) == expected


def test_swift():
    expected = [{"role": "user", "content": [PICTURE, text("Hi")]}, ANSWER]
    assert read_swift({"messages": [{"role": "user", "content": "<image>Hi"}, ANSWER], "images": "a.png"}) == expected
    assert read_swift({"messages": [ASK, ANSWER], "images": [{"path": "a.png", "bytes": None}]}) == expected
    assert read_swift({"query": "Hi", "response": "Hello", "images": ["a.png"], "history": []}) == expected
    assert read_swift({"query": "And?", "response": "So.", "history": [["Hi", "Hello"]], "system": "S"}) == [
        {"role": "system", "content": "S"}, ASK, ANSWER, {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "So."}]
    assert read_swift({"conversation": [{"human": "Hi", "assistant": "Hello"}]}) == [ASK, ANSWER]
    both = [{"role": "system", "content": "S"}, ASK, ANSWER, {"role": "user", "content": "<image>"}]
    shown = read_swift({"messages": both, "images": ["a.png", "b.png"], "audios": ["a.wav"]})
    assert shown[1]["content"] == [PICTURE, SOUND, text("Hi")] and shown[3]["content"][0]["image"] == "b.png"


@pytest.mark.parametrize(("read", "record", "words"), [
    (read_messages, {"text": "Hi"}, ["messages"]),
    (read_messages, 3, ["int"]),
    (read_messages, {"messages": "Hi"}, ["messages"]),
    (read_sharegpt, [ASK], ["list", "object"]),
    (read_sharegpt, {"conversations": [{"from": "human"}]}, ["from and value"]),
    (read_sharegpt, {"conversations": ["Hi"]}, ["Hi", "from and value"]),
    (read_sharegpt, {"messages": [{"role": "user", "content": "<video>Hi"}]}, ["<video>", "videos"]),
    (read_sharegpt, {"messages": [ASK], "images": ["a.png"]}, ["1 images", "<image>", "have 0"]),
    (read_swift, {"messages": [{"role": "user", "content": "<image><image>"}], "images": ["a"]}, ["<image>"]),
])
def test_bad_records(read, record, words):
    with pytest.raises(OmniError) as error:
        read(record)
    one_sentence(error, "record", *words)
