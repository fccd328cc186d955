"""Speech to try training on; flite, where it is installed, speaks so that pocketsphinx understands."""

import json
import shutil
import subprocess
import wave

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.data.audio import load_audio
from omni_jax.training import recognisers, spoken
from omni_jax.training.config import Source
from omni_jax.training.manifests import Manifest
from omni_jax.training.texts import spoken_normal
from tools import smoke_speech


@pytest.fixture
def beeping(monkeypatch):
    """In place of flite: 0.2 s for each word, higher for another voice."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    sine = lambda text, voice: np.sin(np.arange(4800 * len(text.split())) / {"slt": 10, "rms": 5}[voice])
    monkeypatch.setattr(smoke_speech, "flite", lambda text, voice, path: sine(text, voice).astype(np.float32) / 2)


def texts_of(manifest) -> list[str]:
    return [line.conversation()[-1]["content"][0]["text"] for line in Manifest(Source(str(manifest)))]


def test_the_manifests(beeping, tmp_path):
    told = smoke_speech.main([str(tmp_path / "a"), "--train", "40", "--held-out", "12", "--seed", "3"])
    assert told["train"] == 40 and told["held_out"] == 12
    train, held_out = (texts_of(tmp_path / "a" / f"{part}.jsonl") for part in ("train", "held_out"))
    assert train[::2] == train[1::2] and len(set(train)) == 20  # each text by both voices
    assert not {spoken_normal(text) for text in train} & {spoken_normal(text) for text in held_out}
    assert all(2 <= len(text.split()) <= 5 and text.endswith(".") for text in train)
    assert sum("," in text for text in train) in range(10, 36)
    digits = texts_of(tmp_path / "a" / "train_digits.jsonl")
    assert len(digits) == 20 and {*spoken_normal(" ".join(digits)).split()} <= {*smoke_speech.DIGITS}
    for line in Manifest(Source(str(tmp_path / "a" / "train.jsonl"))):
        _, user, reply = line.conversation()
        text, sound = reply["content"]
        assert user["content"] == f"Say: {text['text']}" and sound["speaker"] in smoke_speech.VOICES
        with wave.open(sound["audio"]) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        words, commas = len(text["text"].split()), text["text"].count(",")
        assert len(samples) == 4800 * words + 6000 * commas + 4800
        assert spoken.pause_errors(text["text"], samples, 24_000)[0] == 0
    assert not [path for path in (tmp_path / "a" / "sounds").iterdir() if "part" in path.name]


def test_the_same_seed_makes_the_same_data(beeping, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        smoke_speech.main([str(tmp_path / name), "--train", "8", "--held-out", "4", "--seed", seed])
    files = {name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
             for name in "abc"}
    assert files["a"] == files["b"] != files["c"]


def test_what_is_missing_is_told(beeping, tmp_path, monkeypatch):
    with pytest.raises(OmniError, match="--train and --held-out must be 4 or more"):
        smoke_speech.main([str(tmp_path / "a"), "--train", "3"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OmniError, match="flite: is not installed; run apt-get install flite"):
        smoke_speech.main([str(tmp_path / "a")])
    assert not list(tmp_path.iterdir())


def test_a_voice_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    failed = subprocess.CompletedProcess([], 1, "", "no such voice")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OmniError, match=r"flite -voice \w+: failed \(no such voice\)"):
        smoke_speech.main([str(tmp_path / "a"), "--train", "4", "--held-out", "4"])
    assert not list(tmp_path.iterdir())


def test_pocketsphinx_understands_flite(tmp_path):
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (pip install -r requirements-test.txt)")
    if not shutil.which("flite"):
        pytest.skip("flite is not installed (apt-get install flite)")
    (tmp_path / "words.jsgf").write_text(smoke_speech.grammar("words", smoke_speech.KINDS["words"]))
    recogniser = recognisers.find(f"pocketsphinx:{tmp_path / 'words.jsgf'}")
    for voice, text in zip(smoke_speech.VOICES.values(), ("Three, one four.", "Garden seven, yellow."), strict=True):
        smoke_speech.spoken(text, voice, tmp_path / "a.wav")
        heard = recogniser(load_audio(str(tmp_path / "a.wav")), 16_000)
        assert heard.text == spoken_normal(text)
        assert spoken.pause_errors(text, load_audio(str(tmp_path / "a.wav")), 16_000, heard.words) == (0, 1)


def test_records_are_what_the_manifest_says():
    assert json.loads(json.dumps(smoke_speech.record("n", "words", "one, two tree.", "Ethan")))["messages"][-1] == {
        "role": "assistant", "content": [{"type": "text", "text": "1, 2 tree."},
                                         {"type": "audio", "audio": "sounds/n.wav", "speaker": "Ethan"}]}
