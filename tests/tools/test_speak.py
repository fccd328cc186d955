"""Manifests that are spoken: whose codes and texts, in which voice, what becomes of the lines, and what is told."""

import json
from pathlib import Path

import jax
import librosa
import numpy as np
import pytest
import soundfile

import omni_jax
from omni_jax import OmniError
from omni_jax.config import MelConfig
from omni_jax.data.speech import load_speech
from omni_jax.inference.loading import load_voices
from omni_jax.inference.replies import Reply
from omni_jax.inference.token2wav import encode_speaker, synthesize
from omni_jax.inference.voices import Voices
from omni_jax.training.spoken import Transcript
from tools import speak

HERE = __name__


def hears_hi(samples: np.ndarray, rate: int) -> Transcript:
    """A recogniser that always hears the same."""
    assert rate == 24_000 and samples.size
    return Transcript("hi two")


def reply(text: str, **sound) -> dict:
    items = [{"type": "text", "text": text}, *([{"type": "audio", **sound}] if sound else [])]
    return {"role": "assistant", "content": items}


def asked(words: object = "Say it.") -> dict:
    return {"role": "user", "content": words}


CODES = [(np.arange(n) * step % 300).tolist() for n, step in ((12, 7), (9, 5), (10, 3))]
LINES = [{"id": "x", "messages": [asked([{"type": "audio", "audio": "a.wav"}]),
                                  reply("Hi, two", audio="a.wav", speaker="Ethan", codes=CODES[0], worse=[1]), asked(),
                                  reply("Hi", codes=CODES[1])]},
         {"messages": [asked(), {"role": "assistant", "content": "Not spoken"}]},
         {"messages": [asked(), reply("Three", audio_url="b.wav", codes=CODES[2])]}]


@pytest.fixture
def run(tmp_path, talking, monkeypatch):
    """Of a checkpoint that is loaded already; replies of 12 codes are taken to have ended."""
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: talking)
    monkeypatch.setattr(speak, "load_voices", lambda *_: talking.voices)
    monkeypatch.setattr(speak, "ended", lambda *_: True)
    rng = np.random.default_rng(0)
    for name, samples in (("a", 9_700), ("b", 8_000)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=samples).clip(-3, 3), 24_000)
    (tmp_path / "new").mkdir()

    def spoken(*words, lines=LINES):
        manifest = tmp_path / "speech.jsonl"
        manifest.write_text("".join(json.dumps(each) + "\n" for each in lines))
        return speak.main(["--model", str(talking.voices.directory), "--manifest", str(manifest), "--out",
                           str(tmp_path / "new" / "out"), "--talker-max-new-tokens", "12", *map(str, words)])

    return spoken


def noise(codes: list[int]) -> np.ndarray:
    return (0.1 * np.random.default_rng(len(codes)).normal(size=60 * len(codes))).astype(np.float32)


@pytest.fixture
def made(monkeypatch):
    """Nothing is computed: codes are spoken as noise, texts by as many codes as they have letters; "Three" never
    comes to an end."""
    def replies(self, jobs):
        assert len({job.said is None for job in jobs}) == 1
        codes = [np.arange(len(job.turn.text)) if job.said else job.turn.codes for job in jobs]
        return [None if job.said and job.turn.text == "Three" else Reply("", [], {}, own, noise(own))
                for job, own in zip(jobs, codes, strict=True)]

    monkeypatch.setattr(speak.Speaking, "replies", replies)


def written(tmp_path: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The records, and the sounds by their names."""
    out = tmp_path / "new" / "out"
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return records, {path.name: soundfile.read(path, dtype="float32")[0] for path in sorted((out / "wavs").iterdir())}


def l1(recording: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Between the log mels of the small checkpoints, by numpy's own transform."""
    mel, n = MelConfig(hop=30), min(len(recording), len(wave))

    def logs(wave):
        around = np.pad(wave[:n].astype(np.float64), mel.pad, mode="reflect")
        frames = np.stack([around[i * mel.hop:i * mel.hop + mel.n_fft] for i in range(n // mel.hop)])
        size = np.abs(np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.n_fft) / mel.n_fft))))
        bands = librosa.filters.mel(sr=24_000, n_fft=mel.n_fft, n_mels=mel.bins, fmin=0, fmax=12_000)
        return np.log(np.maximum(size @ bands.T, mel.floor))

    return np.abs(logs(recording) - logs(wave))


def test_a_batch_of_codes(run, tmp_path, talking):
    """As the rows by themselves would be, each in its voice and from its own noise, whatever their order."""
    lines = [{"messages": [asked(), reply("A", codes=CODES[0], speaker="Ethan")]},
             {"messages": [asked(), reply("B", codes=CODES[1])]}]
    run("--batch", "2", "--seed", "4", lines=lines)
    sounds = written(tmp_path)[1]
    voices = [encode_speaker(talking.voices.synthesizer, talking.speakers[name]) for name in ("Ethan", "Chelsie")]
    seeds = np.array([np.random.SeedSequence([4, i]).generate_state(1)[0] for i in range(2)], np.uint32)
    wanted = synthesize(talking.voices.synthesizer, voices, [np.array(codes) for codes in CODES[:2]], seeds)
    for wave, sound in zip(wanted, sounds.values(), strict=True):
        np.testing.assert_allclose(sound, wave, atol=1e-4)


def test_a_batch_of_texts(run, tmp_path, talking):
    """Each is said in reply to the text that stands before it."""
    messages = [asked(), *LINES[0]["messages"][1:]]
    run("--say", "--speaker", "Chelsie", lines=[{"messages": messages}])
    (record,), sounds = written(tmp_path)
    tokenizer = talking.processor.tokenizer
    tokens = [[*tokenizer.encode(text), tokenizer.token_id("<|im_end|>")] for text in ("Hi, two", "Hi")]
    seeds = [int(np.random.SeedSequence([0, i]).generate_state(1)[0]) for i in range(2)]
    before = [asked(), {"role": "assistant", "content": "Hi, two"}, asked()]
    wanted = talking.generate([before[:1], before], reply_ids=tokens, seed=seeds, speaker=["Ethan", None],
                              talker_max_new_tokens=12)
    for i, (theirs, sound) in enumerate(zip(wanted, sounds.values(), strict=True)):
        assert record["messages"][2 * i + 1]["content"][1]["codes"] == theirs.codes.tolist()
        np.testing.assert_allclose(sound, theirs.waveform, atol=1e-4)
    assert wanted[0].codes.tolist() != wanted[1].codes.tolist()


def test_codes_alone_need_token2wav_alone(run, talking, tmp_path, monkeypatch, talking_7b):
    monkeypatch.setattr(speak, "load_voices", load_voices)
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: pytest.fail("loaded the whole"))
    rows = []
    monkeypatch.setattr(Voices, "spoken", lambda self, codes, *_: rows.append(self) or [noise(own) for own in codes])
    run("--mesh", "", lines=LINES[2:])
    voices = rows[0]
    assert voices.talker is None and voices.speakers.keys() == talking.speakers.keys()
    ours, theirs = (jax.tree.leaves(each.synthesizer.params) for each in (voices, talking.voices))
    assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_the_model_that_comes_with_the_package_goes_by_its_name(tmp_path):
    manifest, out = tmp_path / "coded.jsonl", tmp_path / "spoken"
    manifest.write_text(json.dumps({"messages": [asked(), reply("A", codes=CODES[0])]}) + "\n")
    with pytest.raises(OmniError, match="speaker 'Nobody' is unknown; this checkpoint has Heart, Michael"):
        speak.main(["--model", "omni-tiny", "--manifest", str(manifest), "--out", str(out), "--speaker", "Nobody"])
    assert not out.exists()


def test_what_is_written(run, made, tmp_path):
    """Lines keep what else they hold, and their other media."""
    told = run("--batch", "2", "--recogniser", f"{HERE}:hears_hi")
    records, sounds = written(tmp_path)
    assert list(sounds) == [f"0000{i}.wav" for i in range(3)] and (told["turns"], told["said"]) == (3, 0)
    assert records[0]["id"] == "x" and records[1] == LINES[1] and records[0]["messages"][2] == asked()
    assert records[0]["messages"][0]["content"] == [{"type": "audio", "audio": "../../a.wav"}]
    assert [records[i]["messages"][j]["content"][1] for i, j in ((0, 1), (0, 3), (2, 1))] == [
        {"type": "audio", "audio": "wavs/00000.wav", "speaker": "Ethan", "codes": CODES[0], "worse": [1]},
        {"type": "audio", "audio": "wavs/00001.wav", "speaker": "Chelsie", "codes": CODES[1]},
        {"type": "audio", "audio": "wavs/00002.wav", "speaker": "Chelsie", "codes": CODES[2]}]
    assert told["wer"] == (0 + 1 + 2) / 4 and told["seconds_of_sound"] == round(sum(map(len, CODES)) * 60 / 24_000, 2)
    apart = [l1(load_speech(tmp_path / f"{name}.wav"), noise(CODES[i])) for name, i in (("a", 0), ("b", 2))]
    wanted = sum(map(np.sum, apart)) / sum(map(np.size, apart))
    assert told["mel_distance"] == pytest.approx(wanted, abs=1e-3) and wanted > 0.1 and told["real_time_factor"] > 0


def test_texts_without_sound_and_speech_without_an_end(run, made, tmp_path):
    told = run("--say", "--speaker", "Ethan", "--batch", "3")
    records, sounds = written(tmp_path)
    assert (told["said"], told["cut_off"], told["conversations"]) == (3, 1, 2) and "mel_distance" not in told
    assert list(sounds) == ["00000.wav", "00001.wav", "00002.wav"] and len(records) == 2
    said = [record["messages"][i]["content"] for record, i in zip(records * 2, (1, 1, 3), strict=False)]
    assert said[0][1] == {"type": "audio", "audio": "wavs/00000.wav", "speaker": "Ethan", "codes": list(range(7))}
    assert said[1] == [{"type": "text", "text": "Not spoken"}, {"type": "audio", "audio": "wavs/00002.wav",
                                                                "speaker": "Ethan", "codes": list(range(10))}]
    assert said[2][1]["codes"] == [0, 1]


def test_nothing_is_left_of_a_run_that_fails(run, made, tmp_path):
    with pytest.raises(OmniError, match=r"no speech of 1 turns came to an end by itself; raise --talker-max"):
        run("--say", lines=LINES[2:])
    assert not list((tmp_path / "new").iterdir())


def test_broken_lines_are_left_out(run, made, tmp_path):
    nobody, gone = (json.loads(json.dumps(LINES[2]).replace(*pair)) for pair in
                    (('"audio_url"', '"speaker": "Nobody", "audio_url"'), ("b.wav", "gone.wav")))
    wrong = {"messages": [asked(), reply("A", codes=[1, 301.5])]}
    silent = {"messages": [asked(), reply("…", audio="a.wav")]}
    told = run("--max-broken", "0.9", lines=[nobody, gone, wrong, silent, LINES[2]])
    sentences = " ".join(told["broken"].values())
    for part in ("'Nobody' is unknown", "gone.wav", "must be whole numbers", "message 1: has no words to say"):
        assert part in sentences
    records, sounds = written(tmp_path)
    assert len(records) == len(sounds) == told["conversations"] == 1


@pytest.mark.parametrize("words, message", [
    (["--batch", "0"], "--batch: 0 must be 1 or more"), (["--recogniser", "whisper:x"], "whisper"),
    (["--out", "/nowhere/x"], "its parent directory does not exist"), (["--max-broken", "2"], "--max-broken: 2.0"),
    (["--limit", "1"], "speech.jsonl: has no turn to speak"), (["--model", "nowhere"], "nowhere"),
], ids=str)
def test_mistakes_are_told_before_a_model_is_loaded(run, monkeypatch, words, message):
    monkeypatch.setattr(speak, "_load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(OmniError) as error:
        run(*words, lines=LINES[1:])
    assert message in str(error.value) and "\n" not in str(error.value)
