"""A manifest of sound to a manifest of codes."""

import json
import wave

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.data.speech import load_speech
from omni_jax.inference.codec import Codec
from omni_jax.training.config import Source
from omni_jax.training.manifests import Manifest
from omni_jax.training.spoken import Transcript
from tests.inference.test_codec import RATE, speech, write_networks
from tests.tiny import write_checkpoint
from tools import make_codes


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("codes") / "checkpoint", "7b", speech=True, dtype="float32", seed=1)
    write_networks(path)
    return path


def write_sound(path, samples, rate=RATE):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())


def said(sound, **fields):
    return {"messages": [{"role": "user", "content": "Say it."},
                         {"role": "assistant", "content": [{"type": "text", "text": "It."},
                                                           {"type": "audio", "audio": sound, **fields}]}]}


def write_manifest(folder, records):
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "in" / "speech.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_sound(tmp_path / "in" / "a.wav", speech(RATE))
    write_sound(tmp_path / "in" / "b.wav", speech(16_000, seed=2), rate=16_000)
    write_sound(tmp_path / "in" / "silent.wav", np.zeros(RATE))
    write_sound(tmp_path / "in" / "telephone.wav", speech(8_000), rate=8_000)
    return tmp_path


def run(folder, directory, records, *options):
    manifest = write_manifest(folder, records)
    return make_codes.main([str(directory), str(manifest), str(folder / "out" / "coded.jsonl"), *options])


def test_codes_are_the_codecs(folder, directory, monkeypatch):
    """Relative paths lead from the new folder to the same files; all else is kept."""
    monkeypatch.chdir(folder)
    heard = {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "b.wav"}]},
                          {"role": "assistant", "content": "Yes."}]}
    records = [{"id": "first", **said("a.wav", speaker="Ethan")}, heard, said(str(folder / "in" / "b.wav"))]
    told = run(folder.relative_to(folder), directory, records)
    codec, lines = Codec.load(directory), list(Manifest(Source("out/coded.jsonl")))
    assert lines[0].record()["id"] == "first" and len(lines) == 3
    item = lines[0].conversation()[1]["content"][1]
    assert item["speaker"] == "Ethan" and item["type"] == "audio"
    expected = [codec.encode(load_speech(folder / "in" / name)) for name in ("a.wav", "b.wav")]
    assert item["codes"] == expected[0].tolist() == codec.encode(load_speech(item["audio"])).tolist()
    assert lines[1].conversation()[0]["content"][0]["audio"] == "out/../in/b.wav"
    assert lines[2].conversation()[1]["content"][1]["codes"] == expected[1].tolist()
    assert lines[2].conversation()[1]["content"][1]["audio"] == str(folder / "in" / "b.wav")
    every = np.concatenate(expected)
    shares = np.unique(every, return_counts=True)[1] / len(every)
    assert told["codes"] == len(every) and told["spoken_turns"] == 2 and told["conversations"] == 3
    assert told["used_codes"] == len(shares) > 5 and told["known_codes"] == 299
    assert told["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=0.01)
    assert told["seconds_of_speech"] == pytest.approx(2, abs=0.01) and not told["broken"]


def test_broken_ones_are_left_out_up_to_a_share(folder, directory):
    records = [said("a.wav"), said("silent.wav"), said("nowhere.wav"), said("telephone.wav"), said("b.wav")]
    told = run(folder, directory, records, "--max-broken=0.6")
    assert told["conversations"] == 2
    for line, sentence in ((2, "silent.wav: is silent"), (3, "no such file"), (4, "telephone.wav: has 8,000 Hz")):
        assert sentence in told["broken"][f"{folder / 'in' / 'speech.jsonl'}:{line}"]
    (folder / "out" / "coded.jsonl").unlink()
    with pytest.raises(OmniError, match=r"2 of 5 examples are broken, more than --max-broken 0\.2 .*silent"):
        run(folder, directory, records, "--max-broken=0.2")
    assert not list((folder / "out").iterdir())


def says_it(wave, rate):
    """A recogniser that hears "It." where the first sample is positive, else something else."""
    return Transcript("it" if wave[np.abs(wave) > 0.01][0] > 0 else "that is not it at all")


def test_transcripts_that_do_not_match_are_left_out(folder, directory):
    write_sound(folder / "in" / "other.wav", -speech(RATE))
    records = [said("a.wav"), said("other.wav")]  # one of them is what is written
    told = run(folder, directory, records, "--max-broken=0.5", "--recogniser", f"{__name__}:says_it")
    assert told["conversations"] == 1
    assert "'that is not it at all', and 'It.' is written" in " ".join(told["broken"].values())


def test_codes_without_sound_are_kept(folder, directory):
    spoken = said(None, codes=[1, 2, 3])
    run(folder, directory, [spoken, said("a.wav", codes=[5])])
    first, second = (line.conversation()[1]["content"][1] for line in Manifest(Source(str(folder / "out/coded.jsonl"))))
    assert first["codes"] == [1, 2, 3] and len(second["codes"]) == RATE // 60


def test_what_is_wrong_is_told_before(folder, directory, talking_7b):
    with pytest.raises(OmniError, match="no codec encoder"):
        run(folder, talking_7b, [said("a.wav")])
    with pytest.raises(OmniError, match="has no speech to make codes of"):
        run(folder, directory, [[{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]])
    (folder / "out" / "coded.jsonl").touch()
    with pytest.raises(OmniError, match="exists already"):
        run(folder, directory, [said("a.wav")])
