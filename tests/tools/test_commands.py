"""The commands as a user meets them: exit status 0 or 1, one sentence, no traceback."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import jax
import numpy as np
import pytest

from omni_jax import OmniError
from tools import _cli, demo, generate, parity
from tools._sound import pcm

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "omni_jax" / "assets" / "samples"
COMMANDS = sorted(path.stem for path in (ROOT / "tools").glob("*.py") if not path.stem.startswith("_"))


def command(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(f"tools.{name}").main(["--help"])
    assert exit_.value.code == 0 and f"python -m tools.{name}" in capsys.readouterr().out


def test_generate_prints_the_reply(checkpoint_7b, omni, capsys):
    words = ["--model", str(checkpoint_7b), "--mesh", "model=1", "--max-new-tokens", "5", "--text", "Look:",
             "--image", str(SAMPLES / "picture.jpg")]
    conversation = [{"role": "user", "content": [{"type": "text", "text": "Look:"},
                                                 {"type": "image", "image": str(SAMPLES / "picture.jpg")}]}]
    expected = omni.generate(conversation, max_new_tokens=5)
    assert generate.main([*words, "--json"])["token_ids"] == expected.token_ids
    generate.main([*words, "--stream"])
    assert capsys.readouterr().out == expected.text + "\n"


SPEAK = ["--text", "Hi", "--mesh", "model=1", "--max-new-tokens", "4", "--talker-max-new-tokens", "30"]


def test_generate_writes_the_sound(talking_7b, talking, tmp_path, capsysbinary):
    """The same sound as a WAV file, written at once or streamed, and as raw samples on standard output."""
    words = ["--model", str(talking_7b), *SPEAK, "--speaker", "Ethan"]
    expected = talking.generate([{"role": "user", "content": "Hi"}], max_new_tokens=4, talker_max_new_tokens=30,
                                speaker="Ethan")
    samples = pcm(expected.waveform)
    at_once, streamed = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    told = generate.main([*words, "--out", at_once, "--json"])
    assert told["codes"] == expected.codes.tolist() and told["timings"]["first_audio"] > 0
    generate.main([*words, "--out", streamed, "--stream"])
    for path in (at_once, streamed):
        with wave.open(path, "rb") as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
            read = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.abs(read - np.frombuffer(samples, "<i2").astype(int)).max() <= 1
    capsysbinary.readouterr()
    for flags in ([], ["--stream"]):
        generate.main([*words, "--out", "-", *flags])
        raw, text = capsysbinary.readouterr()
        assert np.abs(np.frombuffer(raw, "<i2") - np.frombuffer(samples, "<i2").astype(int)).max() <= 1
        assert text.decode() == expected.text + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("words, message", [
    (["--speaker", "Nobody"], "this checkpoint has Chelsie, Ethan"),
    (["--out", "nowhere/x.wav"], "--out nowhere/x.wav"),
    (["--out", "-", "--json"], "choose one"), (["--out", "x.wav", "--talker-top-p", "3"], "talker_top_p is 3.0"),
], ids=str)
def test_generate_refuses_to_speak_in_one_sentence(talking_7b, words, message):
    with pytest.raises(OmniError, match=message):
        generate.main(["--model", str(talking_7b), *SPEAK, *words])


@pytest.mark.parametrize("words, message", [
    (["--text", "hi", "--image", "nothing.png"], "nothing.png"),
    ([], "nothing to ask"),
    (["--audio", str(ROOT / "README.md")], "README.md"),
    (["--text", "hi", "--temperature", "-1"], "temperature is -1"),
    (["--text", "hi", "--mesh", "model=99"], "needs 99 devices"),
    (["--video", str(SAMPLES / "picture.jpg")], "picture.jpg"),
    (["--text", "hi", "--stream", "--json"], "choose one"),
    (["--text", "hi", "--dtype", "int3"], "int3"),
], ids=lambda value: " ".join(value)[-20:] if isinstance(value, list) else "")
def test_generate_refuses_in_one_sentence(checkpoint_7b, words, message):
    with pytest.raises(OmniError) as error:
        generate.main(["--model", str(checkpoint_7b), *words])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("words", [["--model", "nowhere", "--text", "hi"], ["--modle", "x"]], ids=str)
def test_a_users_mistake_ends_with_status_1(words):
    ended = command("tools.generate", *words)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1


@pytest.mark.parametrize("words, message", [
    (["x", "--js"], "unrecognized arguments: --js"), ([], "required: checkpoint"), (["x", "--a\nb"], "--a b")], ids=str)
def test_usage_errors_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        parity.main(words)
    told = capsys.readouterr()
    assert exit_.value.code == 1 and told.out == "" and message in told.err
    assert re.fullmatch("error: .*; see --help\n", told.err)


def test_parity_fails_when_something_is_over_its_bar(monkeypatch, capsys, precision):
    monkeypatch.setattr(parity.omni_jax, "load", lambda *_, **__: None)
    monkeypatch.setattr(parity, "reference_model", lambda _: None)
    monkeypatch.setattr(parity, "check", lambda _: None)
    monkeypatch.setattr(parity, "cases", lambda: [parity.Case("text", ())])
    for error, fails in ((1e-6, False), (1e-4, True)):
        monkeypatch.setattr(parity, "compare", lambda *_, error=error: [parity.Row("text", "decoder", error, 1e-5)])
        if fails:
            with pytest.raises(OmniError, match="1 of 1 comparisons are over their bar"):
                parity.main(["checkpoint", "--json"])
        else:
            parity.main(["checkpoint", "--json"])
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert row["passes"] is not fails
    assert jax.config.jax_default_matmul_precision == "highest"


@pytest.fixture
def precision():
    """parity sets the precision of the whole process; later tests want theirs."""
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


def test_parity_refuses_our_own_layout(tmp_path):
    (tmp_path / "params.json").write_text('{"format": "omni_jax", "version": 1}')
    with pytest.raises(OmniError, match="convert it back to Hugging Face layout first"):
        parity.main([str(tmp_path)])


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_parity_says_what_is_not_installed(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OmniError, match=f"{package}.*; run pip install -r requirements-test.txt"):
        parity.main([str(tmp_path)])


@pytest.mark.slow
def test_the_demo_of_a_thinker_alone(checkpoint_7b, tmp_path, capsys):
    demo.main(["--model", str(checkpoint_7b), "--out", str(tmp_path), "--tokens", "3"])
    printed = capsys.readouterr().out
    assert re.search(r"video video.mp4, 448 x 252 pixels, 5.28 s, 10 frames at 1.894 fps: 720 tokens", printed)
    assert "audio speech.flac, 7.10 s, 710 mel frames: 177 tokens" in printed and "tokens/s" in printed
    for picture in ("positions.png", "frames.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


@pytest.mark.slow
def test_the_demo(talking_7b, tmp_path, capsys):
    """Shows what went in, draws it, speaks, and tells machines all of it on standard output alone."""
    with pytest.raises(SystemExit) as exit_:
        _cli.run(demo.main, ["--model", str(talking_7b), "--out", str(tmp_path), "--tokens", "3", "--json"])
    told = capsys.readouterr()
    assert exit_.value.code == 0
    assert re.search(r"video video.mp4, 448 x 252 pixels, 5.28 s, 10 frames at 1.894 fps: 720 tokens", told.err)
    assert "audio speech.flac, 7.10 s, 710 mel frames: 177 tokens" in told.err and "tokens/s" in told.err
    for picture in ("positions.png", "frames.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    shown = json.loads(told.out)
    assert {"a picture", "speech"} <= shown.keys()
    assert 0 < shown["speech"]["first_audio_seconds"] <= shown["speech"]["total_seconds"]
    with wave.open(str(tmp_path / "reply.wav"), "rb") as file:
        assert file.getnframes() / 24_000 == pytest.approx(shown["speech"]["audio_seconds"]) != 0


@pytest.mark.parametrize("inner", ["", "/deeper"])
def test_the_demo_wants_a_directory(tmp_path, inner):
    (tmp_path / "file").write_text("")
    with pytest.raises(OmniError, match=r"--out .*file.*: is a file or lies in one; give a directory"):
        demo.main(["--out", f"{tmp_path}/file{inner}"])


def test_the_demo_makes_nothing_in_place_of_a_missing_model(tmp_path):
    with pytest.raises(OmniError, match="missing: is not a directory"):
        demo.main(["--out", str(tmp_path), "--model", str(tmp_path / "missing")])
    assert not (tmp_path / "missing").exists()


def test_newer_packages_are_no_reason_to_make_the_checkpoint_again(tmp_path):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    (tmp_path / "out" / "random").mkdir(parents=True)
    (tmp_path / ".venv").mkdir()
    for name in ("requirements.txt", ".venv/run"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "out" / "random", (1, 1))
    os.utime(tmp_path / "requirements.txt", (1, 1))
    words = ["make", "-n", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), "out/random"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "random_checkpoint" not in ended.stdout
    (tmp_path / "out" / "random").rmdir()
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "random_checkpoint" in ended.stdout


def test_the_lines_of_the_readme_work():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "s of sound]" in ended.stdout and "A butterfly." in ended.stdout
