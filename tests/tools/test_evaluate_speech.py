"""The evaluation of speech: what is said, by whom, who listens, and what is told before anything is loaded."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

import omni_jax
from omni_jax import OmniError
from omni_jax.training.config import Source
from omni_jax.training.spoken import Transcript
from tools import evaluate
from tools._examples import read

HERE = __name__
heard_lengths: list[int] = []


def hears_hi(samples: np.ndarray, rate: int) -> Transcript:
    """A recogniser that always hears the same."""
    assert samples.dtype == np.float32 and rate == 24_000
    heard_lengths.append(len(samples))
    return Transcript("hi two")


def loudness(samples: np.ndarray, rate: int) -> np.ndarray:
    """An encoder of voices, of some sort."""
    return np.array([len(samples) / rate, 1.0], np.float32)


def line(question: str, text: str, speaker: str | None = None, audio: str = "voice.wav", **fields) -> dict:
    sound = {"type": "audio", "audio": audio} | ({"speaker": speaker} if speaker else {})
    return {"messages": [{"role": "user", "content": question},
                         {"role": "assistant", "content": [{"type": "text", "text": text}, sound]}], **fields}


LINES = [line("Say A.", "Hi, two", "Ethan", id="a/b"), line("Say B.", "Hi", id="b")]
WANTED = "speech_wer,pause_error,ended,clipped,speaker_similarity"
LISTENERS = ["--recogniser", f"{HERE}:hears_hi", "--voice-encoder", f"{HERE}:loudness"]
SEEDS = [evaluate.line_seed(3, name) for name in ("a/b", "b")]


@pytest.fixture
def run(tmp_path, talking, monkeypatch):
    monkeypatch.setattr(omni_jax, "load", lambda *_, speech, **__: talking if speech else pytest.fail("no speech"))
    soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(16_000, np.float32), 16_000)

    def evaluated(*words, lines=LINES):
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text("".join(json.dumps(each) + "\n" for each in lines))
        return evaluate.main(["--model", "M", "--manifest", str(manifest), "--max-new-tokens", "5", "--json",
                              "--talker-max-new-tokens", "12", "--seed", "3", *map(str, words)])

    return evaluated


def rows(path: Path) -> dict:
    return {row["id"]: row for row in map(json.loads, path.read_text().splitlines()[1:])}


def test_references_are_said(run, talking, tmp_path):
    """By each line's speaker, as `generate` would speak them; what is done is not done again."""
    heard_lengths.clear()
    words = ["--say", "--metrics", WANTED, *LISTENERS, "--wavs", tmp_path / "wavs", "--out", tmp_path / "out.jsonl"]
    told = run(*words)
    done, tokenizer = rows(tmp_path / "out.jsonl"), talking.processor.tokenizer
    end = tokenizer.token_id("<|im_end|>")
    assert talking.reply_ids("Hi, two") == [*tokenizer.encode("Hi, two"), end]
    expected = talking.generate(
        [each["messages"][:1] for each in LINES], speaker=["Ethan", None], seed=SEEDS, talker_max_new_tokens=12,
        reply_ids=[[*tokenizer.encode(text), end] for text in ("Hi, two", "Hi")])
    assert [done[name]["reply"] for name in ("a/b", "b")] == ["Hi, two", "Hi"]
    wave_a, seconds = expected[0].waveform, len(expected[0].waveform) / 24_000
    alike = (seconds + 1) / np.sqrt(2 * (seconds**2 + 1))
    assert done["a/b"]["statistics"] == {
        "speech_wer": [0, 2], "pause_error": [1, 1], "ended": [0, 1],
        "clipped": [(np.abs(wave_a) > 0.99998).sum(), wave_a.size], "speaker_similarity": [pytest.approx(alike), 1]}
    assert done["b"]["statistics"]["speech_wer"] == [1, 1] and done["b"]["heard"] == "hi two"
    assert told["metrics"]["speech_wer"]["value"] == pytest.approx(1 / 3)
    assert sorted(heard_lengths) == sorted(len(reply.waveform) for reply in expected)
    for name, reply in zip(("a%2Fb", "b"), expected, strict=True):
        with wave.open(str(tmp_path / "wavs" / f"{name}.wav")) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        np.testing.assert_allclose(samples, reply.waveform, atol=1e-4)
    again = run(*words)
    assert again["answered_now"] == 0 and again["metrics"] == told["metrics"]
    with pytest.raises(OmniError, match=r"was written with talker_temperature None, and now it is 0\.5"):
        run(*words, "--talker-temperature", "0.5")


def test_the_models_own_replies_are_spoken(run, talking, tmp_path):
    run("--metrics", "wer,speech_cer", *LISTENERS[:2], "--speaker", "Ethan", "--out", tmp_path / "out.jsonl")
    expected = talking.generate([each["messages"][:1] for each in LINES], max_new_tokens=5, speaker="Ethan",
                                seed=SEEDS, talker_max_new_tokens=12)
    done = rows(tmp_path / "out.jsonl")
    for name, reply in zip(("a/b", "b"), expected, strict=True):
        assert done[name]["reply"] == reply.text and done[name]["scores"].keys() == {"wer", "speech_cer"}
        assert done[name]["seconds"] == pytest.approx(len(reply.waveform) / 24_000, abs=1e-3)
        assert not done[name]["ended"]


def test_earlier_speech_of_the_assistant_is_read_and_not_heard(tmp_path):
    asked = [{"type": "audio", "audio": "question.wav"}]
    messages = [{"role": "user", "content": asked}, *line("", "Hi, two")["messages"][1:],
                {"role": "user", "content": "And?"}, *line("", "No", "Ethan")["messages"][1:]]
    (tmp_path / "m.jsonl").write_text(json.dumps(messages))
    (example,), broken = read(Source(str(tmp_path / "m.jsonl")), ("ended",), say=True)
    assert not broken and example.speaker == "Ethan" and example.answer.references == ("No",)
    assert example.answer.recording == str(tmp_path / "voice.wav")
    assert [turn["content"] for turn in example.question] == [
        [{"type": "audio", "audio": str(tmp_path / "question.wav")}], [{"type": "text", "text": "Hi, two"}], "And?"]


@pytest.mark.parametrize("words, message", [
    (["--metrics", "speech_wer"], "speech_wer: wants --recogniser pocketsphinx:GRAMMAR.jsgf"),
    (["--metrics", "speaker_similarity"], "speaker_similarity: wants --voice-encoder resemblyzer or"),
    (["--metrics", "speech_wer", "--recogniser", "whisper:/nowhere"], "whisper"),
    (["--metrics", "speech_wer", "--recogniser", "nobody"], "recogniser 'nobody'"),
    (["--metrics", "wer,ended", "--say"], "wer: judges the model's own words"),
    (["--metrics", "ended", "--talker-max-new-tokens", "0"], "--talker-max-new-tokens: 0 must be 1 or more"),
], ids=str)
def test_mistakes_are_told_before_a_model_is_loaded(run, monkeypatch, words, message):
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(OmniError) as error:
        run(*words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_lines_that_cannot_be_spoken_are_broken(run):
    lines = [line("Say.", "Hi", "Nobody", id="who"), line("Say.", "Hi", audio="gone.wav", id="gone"),
             {"messages": LINES[0]["messages"][:1], "id": "unanswered"}]
    told = run("--metrics", "speaker_similarity", *LISTENERS[2:], "--say", "--max-broken", "1", lines=lines)
    assert "speaker 'Nobody' is unknown" in told["broken"]["id who"] and "gone.wav" in told["broken"]["id gone"]
    assert "wants recording" in " ".join(told["broken"].values())
    with pytest.raises(OmniError, match="speaker 'Nobody' is unknown"):
        run("--metrics", "ended", "--speaker", "Nobody")
    with pytest.raises(OmniError, match=r"--wavs .*gone: is a file, or lies in a directory that does not exist"):
        run("--metrics", "ended", "--wavs", "/nowhere/gone")
