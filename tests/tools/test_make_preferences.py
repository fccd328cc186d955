"""Pairs of better and worse speech: which are made, what their lines hold, and that a run goes on where it stood."""

import json
from pathlib import Path

import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.inference.replies import Reply
from omni_jax.training.spoken import Spoken, Transcript
from tools import make_preferences
from tools._sound import write_wav
from tools.make_preferences import Rendering, best_and_worst

HERE = __name__
heard: list[np.ndarray] = []


def hears_every_second_well(samples: np.ndarray, rate: int) -> Transcript:
    """A recogniser that hears the first rendering of each line wrong, and every second one right."""
    heard.append(samples)
    return Transcript("hi two" if len(heard) % 2 == 0 else "hi nine or ten")


LINES = [{"id": "x", "note": 7, "messages": [
    {"role": "user", "content": [{"type": "text", "text": "Say A."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Hi, two"},
                                      {"type": "audio", "audio": "sounds/a.wav", "speaker": "Ethan", "codes": [1]}]}]},
    {"messages": [{"role": "user", "content": "Say B."}, {"role": "assistant", "content": "Hi, two"}]}]


@pytest.fixture
def run(tmp_path, talking, monkeypatch):
    """Two renderings of each line, all of which are taken to have ended."""
    heard.clear()
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: talking)
    monkeypatch.setattr(make_preferences, "ended", lambda *_: True)
    (tmp_path / "sounds").mkdir()
    write_wav(tmp_path / "sounds" / "a.wav", np.ones(2400, np.float32) / 9)
    (tmp_path / "new").mkdir()

    def made(*words, lines=LINES):
        manifest = tmp_path / "speech.jsonl"
        manifest.write_text("".join(json.dumps(each) + "\n" for each in lines))
        return make_preferences.main([
            "--model", "M", "--manifest", str(manifest), "--out", str(tmp_path / "new" / "pairs.jsonl"), "--recogniser",
            f"{HERE}:hears_every_second_well", "--samples", "2", "--batch", "1", "--talker-max-new-tokens", "12",
            *map(str, words)])

    return made


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_and_the_worst(run, tmp_path, talking):
    told = run("--wavs", tmp_path / "new" / "wavs", "--pause-weight", "0.5")
    pairs = records(tmp_path / "new" / "pairs.jsonl")
    assert told["pairs"] == told["lines"] == 2 and told["wer"] == 3 / 4 and told["ended"] == 1
    # A mark of each text has no pause: -(0 + 0.5) and -(3 / 2 + 0.5).
    assert (told["reward_better"], told["reward_worse"]) == (-0.5, -2.0)
    assert pairs[0]["id"] == "x" and pairs[0]["note"] == 7 and "id" not in pairs[1]
    assert pairs[0]["preference"] == {"rewards": [-0.5, -2.0], "transcripts": ["hi two", "hi nine or ten"]}
    for pair, line, speaker in zip(pairs, LINES, ("Ethan", "Chelsie"), strict=True):
        assert pair["messages"][0] == line["messages"][0]
        text, sound = pair["messages"][1]["content"]
        assert text == {"type": "text", "text": "Hi, two"} and sound["type"] == "audio" and sound["speaker"] == speaker
        assert 0 < len(sound["codes"]) <= 12 and sound["codes"] != sound["worse"]
    tokens = [*talking.processor.tokenizer.encode("Hi, two"), talking.processor.tokenizer.token_id("<|im_end|>")]
    seeds = np.random.SeedSequence([0, 1]).generate_state(2).tolist()
    own = talking.generate([LINES[1]["messages"][:1]] * 2, reply_ids=[tokens] * 2, seed=seeds, talker_max_new_tokens=12)
    sound = pairs[1]["messages"][1]["content"][1]
    assert [sound["worse"], sound["codes"]] == [reply.codes.tolist() for reply in own]
    assert sound["audio"] == "wavs/2-better.wav"
    assert sorted(path.name for path in (tmp_path / "new" / "wavs").iterdir()) == [
        f"{number}-{name}.wav" for number in "12" for name in ("better", "worse")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["pairs.jsonl", "wavs"]


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    run()
    whole = records(tmp_path / "new" / "pairs.jsonl")
    assert whole[0]["messages"][1]["content"][1]["audio"] == "../sounds/a.wav"
    (tmp_path / "new" / "pairs.jsonl").unlink()
    listen, told = hears_every_second_well, []

    def once(samples, rate):
        if len(told) == 2:
            raise KeyboardInterrupt
        told.append(rate)
        return listen(samples, rate)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setitem(globals(), "hears_every_second_well", once)
        run()
    assert not (tmp_path / "new" / "pairs.jsonl").exists()
    with pytest.raises(OmniError, match=r"was written with margin 0\.1, and now it is 0\.7"):
        run("--margin", "0.7")
    assert run()["made_now"] == 1 and records(tmp_path / "new" / "pairs.jsonl") == whole


def test_lines_without_a_pair(run, tmp_path, monkeypatch):
    with pytest.raises(OmniError, match=r"pairs.jsonl: no pair was found in 2 lines, in 0 of which no speech came to "
                                        "an end; lower --margin"):
        run("--margin", "1.6")
    assert not list((tmp_path / "new").iterdir())
    monkeypatch.setattr(make_preferences, "ended", lambda *_: False)
    with pytest.raises(OmniError, match="in 2 of which no speech"):
        run()


def rendering(codes: int, reward: float, ended: bool = True) -> Rendering:
    return Rendering(Reply("", [], {}, np.zeros(codes, np.int32)), Spoken(ended=ended), reward)


def test_what_is_never_the_better():
    cut, best, worst, empty = rendering(9, 0.0, False), rendering(5, -1.0), rendering(5, -2.0), rendering(0, -9.0)
    assert best_and_worst([empty, worst, cut, best]) == (best, worst)
    assert best_and_worst([worst, cut]) is None  # what was cut off is better than the only one that ended
    babble = rendering(9, -5.0, False)
    assert best_and_worst([best, babble]) == (best, babble) and best_and_worst([babble, cut]) is None
    assert best_and_worst([best, rendering(5, -1.0)]) is None and best_and_worst([empty]) is None


@pytest.mark.parametrize("words, message", [
    (["--samples", "1"], "--samples: 1 must be 2 or more"), (["--talker-temperature", "0"], "says the same each time"),
    (["--recogniser", "whisper:x"], "whisper"), (["--margin", "0"], "--margin and --pause-weight: 0.0 must be above 0"),
    (["--out", "/nowhere/x"], "--out /nowhere/x: exists already, or its directory does not"),
    (["--max-broken", "0.4"], "1 of 2 examples are broken"),
], ids=str)
def test_mistakes_are_told_before_a_model_is_loaded(run, monkeypatch, words, message):
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(OmniError) as error:
        run(*words, lines=[LINES[0], {"messages": LINES[0]["messages"][:1]}])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_broken_lines_are_counted(run):
    nobody = json.loads(json.dumps(LINES[0]).replace("Ethan", "Nobody"))
    silent = {"messages": [*LINES[1]["messages"][:1], {"role": "assistant", "content": "…"}]}
    told = run("--max-broken", "0.8", lines=[nobody, silent, LINES[1]])
    assert told["pairs"] == 1 and len(told["broken"]) == 2
    assert "speaker 'Nobody' is unknown" in told["broken"]["line 1"]
    assert "ends with a reply without words" in "".join(told["broken"].values())
