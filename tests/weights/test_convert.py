"""The command: both directions, one-line errors with status 1, and nothing half written."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from tests.weights.checkpoints import copy, rewrite
from tests.weights.test_export import equal_bytes
from tests.weights.test_speakers import Payload, pack
from tools import convert, random_checkpoint
from tools._cli import run, size


def fails(capsys, argv, command=convert) -> str:
    """Runs the command, which must fail; its one line on stderr."""
    with pytest.raises(SystemExit) as caught:
        run(command.main, [str(word) for word in argv])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(lines) == 1 and "Traceback" not in captured.err and not captured.out
    return lines[0]


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_there_and_back(tmp_path, original, store):
    convert.main([str(store), str(tmp_path / "back")])
    equal_bytes(original, tmp_path / "back")
    assert (tmp_path / "back" / "spk_dict.pt").read_bytes() == (original / "spk_dict.pt").read_bytes()
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (original / "config.json").read_text())


def test_as_a_command_with_json(tmp_path, original):
    command = [sys.executable, "-m", "tools.convert", str(original), str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["layout"] == "store" and summary["speakers"] == ["Chelsie", "Ethan"]


@pytest.mark.parametrize("command", [convert, random_checkpoint])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as caught:
        run(command.main, ["--help"])
    assert caught.value.code in (0, None) and "python -m tools." in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["a"], ["a", "b", "c"], ["a", "b", "--max-shard-size", "huge"], ["--what"]])
def test_usage_errors_end_with_1(capsys, argv):
    fails(capsys, argv)


def test_refusals_leave_nothing(tmp_path, capsys, original, broken):
    (tmp_path / "there").mkdir()
    assert "exists already" in fails(capsys, [original, tmp_path / "there"])
    assert "not a directory" in fails(capsys, [tmp_path / "nowhere", tmp_path / "out"])
    assert "parent" in fails(capsys, [original, tmp_path / "no" / "out"])
    rewrite(broken, lambda arrays: arrays.pop("thinker.lm_head.weight"))
    assert "lm_head.weight is missing" in fails(capsys, [broken, tmp_path / "out"])
    assert names(tmp_path) == ["broken", "there"]


def test_malicious_speakers_stop_the_conversion(tmp_path, capsys, broken):
    pack(broken / "spk_dict.pt", pickle.dumps({"Chelsie": Payload(os.system, f"touch {tmp_path / 'ran'}")}, 2))
    assert "refused" in fails(capsys, [broken, tmp_path / "out"])
    assert names(tmp_path) == ["broken"]


def test_too_little_space_is_told_before(tmp_path, capsys, original, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    line = fails(capsys, [original, tmp_path / "out"])
    assert "needs " in line and "1 kB free" in line
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 kB, if we may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place], check=False,
                                           capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("direction", ["store", "huggingface"])
def test_full_disk_midway(small_disk, capsys, original, store, monkeypatch, direction):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**12})())
    line = fails(capsys, [original if direction == "store" else store, small_disk / "out"])
    assert "space" in line.lower() and "nothing was kept" in line
    assert names(small_disk) == []


def test_full_disk_between_groups(tmp_path, capsys, original, monkeypatch):
    """Someone else fills the disk meanwhile: told before the next group is handed to orbax."""
    asked = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(1) or type("Usage", (), {
        "free": 10**12 if len(asked) < 6 else 100})())
    assert "No space left on device" in fails(capsys, [original, tmp_path / "out"])
    assert len(asked) == 6 and names(tmp_path) == []


def test_failing_write_midway(tmp_path, capsys, store, monkeypatch):
    """The same without a small disk: the writes of the third file fail."""
    from omni_jax.weights import safetensors_files

    def full(*arguments):
        raise OSError(28, "No space left on device")

    write, calls = safetensors_files._write_tensor, []
    monkeypatch.setattr(safetensors_files, "_write_tensor",
                        lambda *a: full() if len(calls) > 9 else calls.append(1) or write(*a))
    assert "No space left on device" in fails(capsys, [store, tmp_path / "out"])
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing(tmp_path, original, number):
    slow = ("import time, tools.convert as c, omni_jax.weights.store as s; from tools._cli import run; "
            "save = s._save_group; s._save_group = lambda *a: (save(*a), print('.', flush=True), time.sleep(0.5)); "
            f"run(c.main, [{str(original)!r}, {str(tmp_path / 'out')!r}])")
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # nohup ignores it
    assert process.stdout.readline() == ".\n"
    assert len(names(tmp_path)) == 1
    time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in errors and "Traceback" not in errors
    assert names(tmp_path) == []


def test_store_in_another_place_still_works(tmp_path, store):
    moved = copy(store, tmp_path / "moved")
    assert convert.main([str(moved), str(tmp_path / "out")])["layout"] == "huggingface"


@pytest.mark.parametrize(("text", "count"), [("2GB", 2 * 10**9), ("500MB", 5 * 10**8), ("1GiB", 2**30), ("77", 77),
                                             ("1.5kB", 1500)])
def test_sizes(text, count):
    assert size(text) == count
