"""Damaged files and directories: each fault is one sentence that names the file or tensor."""

import json
import struct

import numpy as np
import pytest

from omni_jax.errors import OmniError
from omni_jax.weights.safetensors_files import INDEX, Tensor, read_directory, read_file, write_file
from tests.weights.checkpoints import is_one_sentence, rewrite


def told(call, *arguments) -> str:
    with pytest.raises(OmniError) as caught:
        call(*arguments)
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def raw_file(path, header: dict | str, payload: bytes = b"") -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


def entry(begin: int, end: int, shape=(2,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_files_are_those_of_the_safetensors_library(tmp_path):
    from ml_dtypes import bfloat16
    from safetensors.numpy import load_file, save_file

    arrays = {"b": np.arange(6, dtype=bfloat16).reshape(2, 3), "a": np.arange(5, dtype=np.float16),
              "c": np.array([], np.int64), "d": np.array(3.5)}
    write_file(tmp_path / "ours", [Tensor(k, a.dtype, a.shape, lambda a=a: a) for k, a in arrays.items()])
    save_file(arrays, tmp_path / "theirs")
    for found in (load_file(tmp_path / "ours"), {k: t.load() for k, t in read_file(tmp_path / "theirs").items()}):
        for key, array in arrays.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_array_equal(found[key], array)


def test_missing_shard(broken):
    shard = sorted(broken.glob("model-*"))[2]
    shard.unlink()
    message = told(read_directory, broken)
    assert "missing" in message and shard.name in message


@pytest.mark.parametrize("keep", [0.6, 0.0, 0.001])
def test_truncated_shard(broken, keep):
    shard = sorted(broken.glob("model-*"))[2]
    data = shard.read_bytes()
    shard.write_bytes(data[:int(len(data) * keep)])
    message = told(read_directory, broken)
    assert "truncated" in message and shard.name in message


def test_bytes_after_the_end(broken):
    shard = sorted(broken.glob("model-*"))[0]
    shard.write_bytes(shard.read_bytes() + b"more")
    assert "after its last tensor" in told(read_directory, broken)


@pytest.mark.parametrize(("header", "word"), [
    ("{not json", "not valid JSON"), ("[1]", "not valid JSON"),
    ({"t": 1}, "data_offsets"), ({"t": entry(0, -8)}, "data_offsets"), ({"t": {**entry(0, 8), "shape": "x"}}, "shape"),
    ({"t": entry(0, 8, dtype="F12")}, "F12"), ({"t": entry(0, 8, (3,))}, "does not fit"),
    ({"t": entry(0, 8), "u": entry(4, 12)}, "does not fit"), ({"t": entry(4, 12)}, "does not fit"),
    (f'{{"t": {json.dumps(entry(0, 8))}, "t": {json.dumps(entry(8, 16))}}}', "t twice"),
    ("[" * 100_000, "not valid JSON"),
])  # fmt: skip
def test_corrupt_header(tmp_path, header, word):
    raw_file(tmp_path / "f.safetensors", header, b"\0" * 12)
    message = told(read_file, tmp_path / "f.safetensors")
    assert word in message and "f.safetensors" in message


def test_absurd_header_length(tmp_path):
    (tmp_path / "f.safetensors").write_bytes(b"\xff" * 64)
    assert "header does not fit" in told(read_file, tmp_path / "f.safetensors")


def change_index(directory, change) -> None:
    index = json.loads((directory / INDEX).read_text())
    change(index["weight_map"])
    (directory / INDEX).write_text(json.dumps(index))


def test_tensor_listed_but_absent(broken):
    shard = sorted(broken.glob("model-*"))[0].name
    change_index(broken, lambda listed: listed.update({"thinker.lost.weight": shard}))
    message = told(read_directory, broken)
    assert "lacks tensor thinker.lost.weight" in message and shard in message


def test_tensor_present_but_unlisted(broken):
    change_index(broken, lambda listed: listed.pop("thinker.visual.merger.ln_q.weight"))
    assert "thinker.visual.merger.ln_q.weight" in told(read_directory, broken)


def test_tensor_in_two_shards(broken):
    rewrite(broken, lambda arrays: None, lambda name: f"model-{len(name) % 2}.safetensors")
    name = "thinker.model.norm.weight"
    tensors = [*read_file(broken / "model-0.safetensors").values(), *read_file(broken / "model-1.safetensors").values()]
    twice = next(tensor for tensor in tensors if tensor.name == name)
    other = {"model-0.safetensors": "model-1.safetensors", "model-1.safetensors": "model-0.safetensors"}[twice.file]
    kept = [(t, np.array(t.load())) for t in read_file(broken / other).values()]
    write_file(broken / other, [twice, *(Tensor(t.name, t.dtype, t.shape, lambda a=a: a) for t, a in kept)])
    message = told(read_directory, broken)
    assert "doubled" in message and name in message


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../a.safetensors"}}', "{}"])
def test_bad_index(broken, text):
    (broken / INDEX).write_text(text)
    assert INDEX in told(read_directory, broken)


def test_directories_without_or_with_two_sets_of_weights(tmp_path, broken):
    assert "neither" in told(read_directory, tmp_path)
    (broken / "model.safetensors").write_bytes(b"")
    assert "both" in told(read_directory, broken)
