"""Voices: read as torch reads them, without torch and without running anything; hostile files are refused."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from omni_jax.errors import OmniError
from omni_jax.weights import Speaker, read_speakers, write_speakers
from omni_jax.weights.speakers import _read_pickle
from tests.weights.checkpoints import is_one_sentence


def voices():
    generator = torch.Generator().manual_seed(2)
    return {name: {"bos_token": token, "cond": torch.randn(1, 192, generator=generator),
                   "ref_mel": torch.randn(1, frames, 80, generator=generator)}
            for name, token, frames in (("Chelsie", 151872, 31), ("Ethan.2", 151870, 57))}


def assert_same(speakers, expected):
    assert list(speakers) == list(expected)
    for name, speaker in speakers.items():
        assert speaker.bos_token == expected[name]["bos_token"] and type(speaker.bos_token) is int
        for field in ("cond", "ref_mel"):
            array = getattr(speaker, field)
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected[name][field].float().numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_saves(tmp_path, protocol):
    torch.save(voices(), tmp_path / "spk_dict.pt", pickle_protocol=protocol)
    assert_same(read_speakers(tmp_path / "spk_dict.pt"), voices())


@pytest.mark.parametrize("root", ["archive", "a/b", "speakers renamed"])
def test_any_root_directory(tmp_path, root):
    torch.save(voices(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for info in old.infolist():
            new.writestr(root + "/" + info.filename.partition("/")[2], old.read(info))
    assert_same(read_speakers(tmp_path / "b.pt"), voices())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_strides_and_shared_storages(tmp_path, dtype):
    shared = torch.randn(400, 2, 100).to(dtype)
    content = {"A": {"bos_token": torch.tensor(7), "cond": shared[5:197, 1, 3][None],
                     "ref_mel": torch.nn.Parameter(shared[:9, 0, 4:84])[None].detach()},
               "B": {"bos_token": 8, "cond": shared[0:192, 0, 0][None], "ref_mel": shared[:80, 1, ::3].T[None]}}
    torch.save(content, tmp_path / "spk_dict.pt")
    expected = {name: {**fields, "bos_token": int(fields["bos_token"])} for name, fields in content.items()}
    assert_same(read_speakers(tmp_path / "spk_dict.pt"), expected)


def test_whole_numbers(tmp_path):
    numbers = {"x": torch.arange(5), "y": torch.arange(3, dtype=torch.int32), "z": torch.zeros(0, 4)}
    torch.save(numbers, tmp_path / "n.pt")
    content = _read_pickle(tmp_path / "n.pt")
    assert content["x"].dtype == np.int64 and content["y"].tolist() == [0, 1, 2] and content["z"].shape == (0, 4)


@pytest.mark.parametrize("name", ["spk_dict.pt", "speakers.safetensors"])
def test_written_and_read_again(tmp_path, name):
    torch.save(voices(), tmp_path / "theirs.pt")
    write_speakers(tmp_path / name, read_speakers(tmp_path / "theirs.pt"))
    assert_same(read_speakers(tmp_path / name), voices())
    if name == "spk_dict.pt":
        theirs = torch.load(tmp_path / name, weights_only=True)
        assert {n: v["bos_token"] for n, v in theirs.items()} == {n: v["bos_token"] for n, v in voices().items()}
        for voice, fields in voices().items():
            assert all(torch.equal(theirs[voice][key], fields[key]) for key in ("cond", "ref_mel"))


def test_writing_is_deterministic(tmp_path):
    speakers = {"é": Speaker(3, np.ones((1, 192), np.float32), np.ones((1, 4, 80), np.float32))}
    for name in ("a.pt", "b.pt"):
        write_speakers(tmp_path / name, speakers)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert list(torch.load(tmp_path / "a.pt", weights_only=True)) == ["é"]


# Hostile and broken files.


def refusal(path) -> str:
    with pytest.raises(OmniError) as caught:
        read_speakers(path)
    assert is_one_sentence(str(caught.value)) and path.name in str(caught.value), caught.value
    return str(caught.value)


def pack(path, data: bytes, storages=None, compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, payload in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", payload)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command, *arguments):
        self.call = command, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("command", [os.system, eval, exec, pickle.loads, getattr])
def test_code_is_refused_and_never_runs(tmp_path, protocol, command):
    marker = tmp_path / "ran"
    arguments = {os.system: (f"touch {marker}",), getattr: ("text", "upper"), pickle.loads: (b"N.",)}.get(
        command, (f"__import__('os').system('touch {marker}')",))
    pack(tmp_path / "spk_dict.pt", pickle.dumps({"Chelsie": Payload(command, *arguments)}, protocol))
    message = refusal(tmp_path / "spk_dict.pt")
    assert "not tensors" in message and "refused" in message and not marker.exists()


def test_code_inside_a_real_torch_file_is_refused(tmp_path):
    marker = tmp_path / "ran"
    torch.save({**voices(), "Mallory": Payload(os.system, f"touch {marker}")}, tmp_path / "spk_dict.pt")
    assert "system" in refusal(tmp_path / "spk_dict.pt") and not marker.exists()


@pytest.mark.parametrize("data", [
    b"\x80\x02cos\nsystem\nq\x00.", b"\x80\x02ctorch\nload\n.", b"\x80\x02cbuiltins\n__import__\nX\x02\0\0\0os\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.", b"\x80\x02ctorch\n_utils.os.system\n.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\0\0\0ai\nb.",
])  # fmt: skip
def test_other_names_are_refused(tmp_path, data):
    pack(tmp_path / "spk_dict.pt", data)
    assert "refused" in refusal(tmp_path / "spk_dict.pt") or data.endswith(b"i\nb.")


def tensor_pickle(size: tuple, stride: tuple, offset: int = 0, count: int = 4) -> bytes:
    from omni_jax.weights.speakers import _emit

    storage = (b"(" + _emit("storage", []) + b"ctorch\nFloatStorage\n" + _emit("0", []) + _emit("cpu", [])
               + _emit(count, []) + b"tQ")
    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _emit(offset, []) + _emit(size, [])
            + _emit(stride, []) + b"\x89ccollections\nOrderedDict\n)RtR.")


@pytest.mark.parametrize(("size", "stride", "offset", "count"), [
    ((5,), (1,), 0, 4), ((2,), (9,), 0, 4), ((2,), (-1,), 3, 4), ((4,), (1,), 1, 4), ((4,), (1,), -1, 4),
    ((2**30,), (0,), 0, 4), ((2**20, 2**20), (0, 0), 0, 4), ((4,), (1,), 0, 2**30), ((4, 1), (1,), 0, 4),
    ((4,), (1,), 0, -1),
])  # fmt: skip
def test_sizes_beyond_the_storage_are_refused(tmp_path, size, stride, offset, count):
    pack(tmp_path / "spk_dict.pt", tensor_pickle(size, stride, offset, count), {"0": b"\0" * 16})
    assert "damaged" in refusal(tmp_path / "spk_dict.pt")


def test_bombs_are_refused(tmp_path):
    pack(tmp_path / "a.pt", b"\x80\x02}.", {"0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(tmp_path / "a.pt")
    pack(tmp_path / "b.pt", b"\x80\x02" + b"(" * 5_000_000)
    assert "too large" in refusal(tmp_path / "b.pt")
    # A memo index of two billion makes the C unpickler allocate that many slots.
    pack(tmp_path / "c.pt", b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_speakers(tmp_path / "c.pt") == {}
    pack(tmp_path / "d.pt", b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x3f.")
    assert "d.pt" in refusal(tmp_path / "d.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -30])
def test_truncated_file(tmp_path, keep):
    torch.save(voices(), tmp_path / "spk_dict.pt")
    (tmp_path / "spk_dict.pt").write_bytes((tmp_path / "spk_dict.pt").read_bytes()[:keep])
    assert "damaged" in refusal(tmp_path / "spk_dict.pt")


def test_flipped_bytes_never_escape_as_other_errors(tmp_path):
    torch.save(voices(), tmp_path / "a.pt")
    data, generator = (tmp_path / "a.pt").read_bytes(), np.random.default_rng(0)
    path = tmp_path / "spk_dict.pt"
    for position in [*range(0, 900, 7), *generator.integers(0, len(data), 60)]:
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1:])
        try:
            read_speakers(path)
        except OmniError as error:
            assert is_one_sentence(str(error))


@pytest.mark.parametrize(("content", "word"), [
    ([1, 2], "dictionary"), ({3: {}}, "dictionary"), ({"A": {"bos_token": 1}}, "must have"), ({"A": 4}, "must have"),
    ({"A": {"bos_token": "x", "cond": torch.zeros(1, 192), "ref_mel": torch.zeros(1, 3, 80)}}, "bos_token"),
    ({"A": {"bos_token": 1, "cond": torch.zeros(1, 191), "ref_mel": torch.zeros(1, 3, 80)}}, "cond"),
    ({"A": {"bos_token": 1, "cond": torch.zeros(1, 192), "ref_mel": torch.full((1, 3, 80), float("nan"))}}, "ref_mel"),
])  # fmt: skip
def test_content_of_another_form(tmp_path, content, word):
    torch.save(content, tmp_path / "spk_dict.pt")
    assert word in refusal(tmp_path / "spk_dict.pt")
