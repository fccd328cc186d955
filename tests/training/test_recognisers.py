"""Recognisers and encoders of voices: found by a spec, told in one sentence where they are missing."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.data.audio import load_audio
from omni_jax.training import recognisers
from omni_jax.training.spoken import Transcript, Word
from tests.data.media_files import one_sentence

SPEECH = Path(omni_jax.__file__).parent / "assets" / "samples" / "speech.flac"
HERE = __name__


def nothing_heard(wave: np.ndarray, rate: int) -> Transcript:
    return Transcript(f"{wave.size} samples at {rate}")


def grammar(path: Path, words: str) -> str:
    choices = " | ".join(sorted(set(words.split())))
    path.write_text(f"#JSGF V1.0;\ngrammar words;\npublic <said> = <word>+;\n<word> = {choices};\n")
    return f"pocketsphinx:{path}"


def test_anybodys_callable():
    assert recognisers.find(f"{HERE}:nothing_heard")(np.zeros(3), 8) == Transcript("3 samples at 8")
    assert recognisers.find_voice_encoder(f"{HERE}:nothing_heard") is sys.modules[HERE].nothing_heard


@pytest.mark.parametrize("spec, words", [
    ("whispr:x", ["did you mean whisper", "pocketsphinx:FILE"]), ("nothing", ["module:attribute"]),
    (f"{HERE}:gone", ["has no function gone"]), (f"{HERE}:HERE", ["has no function HERE"]), ("", ["give"]),
    ("json.nothing:x", ["json.nothing", "a module that Python finds"])])
def test_specs_that_name_nothing(spec, words):
    with pytest.raises(OmniError) as error:
        recognisers.find(spec)
    one_sentence(error, "recogniser", repr(spec), *words)


@pytest.mark.parametrize("spec, package", [("pocketsphinx:x.jsgf", "pocketsphinx"), ("whisper:x", "faster_whisper"),
                                           ("resemblyzer", "resemblyzer")])
def test_packages_that_are_missing(spec, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OmniError) as error:
        (recognisers.find_voice_encoder if spec == "resemblyzer" else recognisers.find)(spec)
    one_sentence(error, package, "run pip install ")


def test_pocketsphinx_reads_a_phrase_back(tmp_path):
    """Of a real voice, with words that it does not say among those of the grammar."""
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (pip install -r requirements-test.txt)")
    find = recognisers.find(grammar(tmp_path / "words.jsgf", "mister john dash wood had then leisure to red seven"))
    wave = load_audio(str(SPEECH), {"audio_end": 2.0})
    heard = find(wave, 16_000)
    assert "mister john dash wood had then" in heard.text and "seven" not in heard.text
    assert " ".join(word.text for word in heard.words) == heard.text
    ends = [time for word in heard.words for time in (word.start, word.end)]
    assert ends == sorted(ends) and 1 < ends[-1] <= 2.01
    john = next(word for word in heard.words if word.text == "john")
    alone = find(wave[int((john.start - 0.05) * 16_000) : int((john.end + 0.05) * 16_000)], 16_000)
    assert "john" in alone.text
    assert find(wave[:100], 16_000) == Transcript() == find(wave[:0], 16_000)
    assert find(np.zeros(16_000, np.float32), 16_000).text == ""


def test_grammars_that_cannot_be_used(tmp_path):
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (pip install -r requirements-test.txt)")
    (tmp_path / "text").write_text("no grammar")
    for spec, words in ((f"pocketsphinx:{tmp_path / 'gone'}", "give a JSGF file"),
                        (f"pocketsphinx:{tmp_path / 'text'}", "is no JSGF grammar"),
                        (grammar(tmp_path / "words.jsgf", "one xqzzk"), "dictionary")):
        with pytest.raises(OmniError) as error:
            recognisers.find(spec)
        one_sentence(error, spec, words)


def test_whisper(tmp_path, monkeypatch):
    """Against a stand-in of its package."""
    package = ModuleType("faster_whisper")
    words = [SimpleNamespace(word=" Hi", start=0.1, end=0.4, probability=1.0)]
    heard = []

    class WhisperModel:
        def __init__(self, directory, local_files_only):
            assert local_files_only and directory == str(tmp_path)

        def transcribe(self, wave, word_timestamps):
            heard.append(wave)
            return iter([SimpleNamespace(text=" Hi.", words=words), SimpleNamespace(text=" You.", words=None)]), None

    package.WhisperModel = WhisperModel
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    with pytest.raises(OmniError, match=r"no model.bin.*; download one"):
        recognisers.find(f"whisper:{tmp_path}")
    (tmp_path / "model.bin").touch()
    found = recognisers.find(f"whisper:{tmp_path}")(np.zeros(24_000), 24_000)
    assert found == Transcript("Hi. You.", (Word("Hi", 0.1, 0.4),))
    assert heard[0].shape == (16_000,) and heard[0].dtype == np.float32


def test_similarity_is_the_cosine():
    one, other = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    assert recognisers.similarity(one, other) == pytest.approx(0.96) and recognisers.similarity(one, -one) == -1
    assert recognisers.similarity(one, 0 * one) == 0
