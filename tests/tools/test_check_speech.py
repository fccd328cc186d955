"""Speech before and after tuning: what is measured of it, and when it counts as broken."""

import dataclasses
import json

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.training import setup as setups
from omni_jax.training.datasets import held_out_batches
from omni_jax.training.feed import put
from omni_jax.training.step import make_eval_step
from tests.training.conftest import changed
from tests.training.speech_runs import speech_run, write_manifest
from tools import check_speech, evaluate
from tools.check_speech import worse


@pytest.fixture(scope="module")
def manifest(talking_7b, tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("speech"), OmniConfig.load(talking_7b), count=5)


@pytest.fixture
def said(monkeypatch):
    """What tools.evaluate is asked, and what it answers, in turn."""
    asked, answers = [], [(0.9, 0.1), (0.9, 0.1)]

    def main(words):
        asked.append(words)
        return {"metrics": {name: {"value": value} for name, value in
                            zip(("ended", "speech_wer"), answers[len(asked) - 1], strict=True)}}

    monkeypatch.setattr(evaluate, "main", main)
    return asked, answers


def words(checkpoint, manifest, *more):
    return [str(checkpoint), str(checkpoint), "--manifest", str(manifest), "--mesh", "", *map(str, more)]


def test_the_nats_of_codes(talking_7b, manifest, said, tmp_path, capsys):
    """Those of the objective of training, as a run's evaluation has them; a limit takes the first lines."""
    first = manifest.parent / "first.jsonl"
    first.write_text("".join(manifest.read_text().splitlines(keepends=True)[:3]))
    run = changed(speech_run("talker", talking_7b, first), batch_size=2)
    # The tool's own shapes, so that there is one program to compile.
    run = changed(run, data=dataclasses.replace(run.data, length=128, speech_length=320))
    setup = setups.prepare(run)
    step, params = make_eval_step(setup.plan), setups.load_params_of(setup)
    each = [step(*params, put(batch.arrays, setup.mesh)) for batch in held_out_batches(run, setup.processor)]
    sums = {name: sum(float(sums[name]) for sums in each) for name in ("loss", "weight")}
    assert len(each) == 2
    check_speech.main(words(talking_7b, manifest, "--limit", 3, "--batch", 2, "--json"))
    told = json.loads(capsys.readouterr().out)
    assert told["conversations"] == 3 and told["codes"] == sums["weight"]
    assert told["codes"] == sum(len(json.loads(line)["messages"][1]["content"][1]["codes"]) + 1
                                for line in first.read_text().splitlines())
    for name in ("before", "after"):
        assert told[name]["nats"] == pytest.approx(sums["loss"] / sums["weight"], rel=1e-5)
        assert told[name]["ended"] == 0.9 and "wer" not in told[name]
    assert told["worse"] == [] and "--recogniser" not in said[0][0]


def test_speech_that_got_worse(talking_7b, manifest, said, monkeypatch, capsys):
    said[1][1] = (0.85, 0.4)
    monkeypatch.setattr(check_speech, "nats_of", lambda *_: (3.0, 7))
    with pytest.raises(OmniError) as error:
        check_speech.main(words(talking_7b, manifest, "--recogniser", "a:b", "--talker-temperature", "0"))
    assert "speaks worse than" in str(error.value) and "ended went from 0.9000 to 0.8500" in str(error.value)
    assert "wer went from 0.1000 to 0.4000" in str(error.value) and "\n" not in str(error.value)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["before", "after"] and table[2].split() == ["ended", "0.9000", "0.8500"]
    assert "5 conversations, 7 codes" in table[4]
    asked = said[0][0]
    for option, value in {"--metrics": "ended,speech_wer", "--recogniser": "a:b", "--talker-temperature": "0.0",
                          "--model": str(talking_7b), "--mesh": ""}.items():
        assert asked[asked.index(option) + 1] == value


def test_what_counts_as_worse():
    most, before = (0.05, 0.02, 0.02), {"nats": 4.0, "ended": 0.9, "wer": 0.1}
    assert worse(before, {"nats": 4.2, "ended": 0.88, "wer": 0.12}, most) == []
    assert worse(before, {"nats": 1.0, "ended": 1.0, "wer": 0.0}, most) == []
    for name, value in (("nats", 4.21), ("ended", 0.879), ("wer", 0.121), ("nats", np.nan)):
        (phrase,) = worse(before, {**before, name: value}, most)
        assert phrase == f"{name} went from {before[name]:.4f} to {value:.4f}"


@pytest.mark.slow
def test_the_last_turns_are_said(talking_7b, manifest, capsys):
    check_speech.main(words(talking_7b, manifest, "--limit", 1, "--talker-max-new-tokens", 9, "--json"))
    told = json.loads(capsys.readouterr().out)
    assert told["before"] == told["after"] and told["before"]["ended"] in (0, 1)


@pytest.mark.parametrize("more, message", [
    ([], "5 of 5 examples are broken"), ([], "has no codes; make them with tools.make_codes"),
    (["--limit", 0], "--limit: 0 must be 1 or more"), (["--most", 0, -1, 0], "--most: -1.0 must not be below 0"),
], ids=str)
def test_mistakes_are_told_before_weights_are_read(talking_7b, manifest, tmp_path, monkeypatch, more, message):
    monkeypatch.setattr(evaluate, "main", lambda *_: pytest.fail("asked"))
    (tmp_path / "speech.jsonl").write_text(manifest.read_text().replace('"codes"', '"other"'))
    with pytest.raises(OmniError) as error:
        check_speech.main(words(talking_7b, tmp_path / "speech.jsonl", *more))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_both_checkpoints_are_looked_at_first(talking_7b, manifest, monkeypatch):
    monkeypatch.setattr(evaluate, "main", lambda *_: pytest.fail("asked"))
    with pytest.raises(OmniError, match="nowhere is not a directory"):
        check_speech.main([str(talking_7b), "nowhere", *words(talking_7b, manifest)[2:]])
