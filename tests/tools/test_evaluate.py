"""The evaluation over a manifest: the same values by hand, batched or not, interrupted or not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.inference import likelihood
from omni_jax.inference.replies import Reply
from omni_jax.training.config import Source
from omni_jax.training.metrics import METRICS
from tools import evaluate
from tools._examples import MISTIMED, mistimed, read, sound_of, with_media
from tools._results import Results

PICTURE = Path(omni_jax.__file__).parent / "assets" / "samples" / "picture.jpg"
LENGTH = 6  # tokens of a reply


def line(question, reference, **fields):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reference}], **fields}


LOOK = [{"type": "image", "image": "picture.jpg", "max_pixels": 12_000}, {"type": "text", "text": "Where is it?"}]
LINES = [
    line("Tell me a story about a clock.", "Once upon a time.", id="story", metric=["wer", "bleu", "perplexity"]),
    line("Red or green?", "B", id="colours", choices=["red", "green"], metric=["choice", "choice_likelihood"]),
    line("What is two and two?", "4", metric="numeric"),
    line("Hi", "Ho"),
    line(LOOK, "[10, 20, 30, 40]", id="where", metric=["box_iou", "nll"]),
    line("And the\nlast", "one\nof several", id="last", metric=["anls", "token_f1", "perplexity"], answers=["a", "b"]),
]


@pytest.fixture
def run(tmp_path, omni, monkeypatch):
    """Evaluates lines with the checkpoint that has been loaded already."""
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: omni)
    shutil.copy(PICTURE, tmp_path / "picture.jpg")

    def evaluated(*words, lines=LINES):
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
        return evaluate.main(["--model", "M", "--manifest", str(manifest), "--max-new-tokens", str(LENGTH), "--json",
                              *map(str, words)])

    return evaluated


def rows(path) -> dict:
    return {row["id"]: row for row in map(json.loads, path.read_text().splitlines()[1:])}


def test_likelihoods_are_those_of_the_logits(omni):
    """Batched, with the logits of the replies alone and over a chunk's border: as from all logits, one by one."""
    conversations = [[{"role": "user", "content": text}] for text in ("Hi", "x" * 480, "A longer question than that.")]
    replies = ["Yes", "\nIt may be " + "so " * 100, ""]
    pairs = [likelihood.answered(omni, omni.prompt(conversation), reply)
             for conversation, reply in zip(conversations, replies, strict=True)]
    found = likelihood.log_likelihoods(omni, pairs)
    for conversation, pair, values in zip(conversations, pairs, found, strict=True):
        text = omni.processor.tokenizer.decode(pair.tokens[:-1])
        logits = omni.thinker_logits([*conversation, {"role": "assistant", "content": text}], last=len(pair.tokens))
        logits = logits.astype(np.float64)
        expected = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(len(pair.tokens)), pair.tokens]
        np.testing.assert_allclose(values, expected, atol=1e-4)
    assert len(found[1]) > 300 and pairs[1].tokens[-1] == found[2].size - 1 + omni.network.ends[0]


def test_values_are_those_of_the_replies(run, omni, tmp_path):
    told = run("--out", tmp_path / "out.jsonl", "--batch", 2)
    done = rows(tmp_path / "out.jsonl")
    assert told["examples"] == 6 and not told["broken"] and list(done) != [] and set(done) == {
        "story", "colours", "3", "4", "where", "last"}
    for name, question in (("story", LINES[0]), ("4", LINES[3])):  # of a batch, and by itself
        reply = omni.generate(question["messages"][:1], max_new_tokens=LENGTH, return_audio=False)
        assert done[name]["reply"] == reply.text
    assert done["4"]["scores"] == {"exact": 0.0} and done["last"]["references"] == ["a", "b"]
    losses = [done[name]["statistics"]["perplexity"] for name in ("story", "last")]
    assert losses[0][1] == len("Once upon a time.") + 1 and losses[1][1] == 2  # a token a byte, and the end mark
    total = told["metrics"]["perplexity"]
    assert total["n"] == 2 and total["value"] == pytest.approx(np.exp((losses[0][0] + losses[1][0]) / 20))
    assert total["low"] <= total["value"] <= total["high"]
    assert told["metrics"].keys() == {name for row in done.values() for name in row["scores"]}


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    whole = run("--out", out, "--batch", 2)
    lines, replies = out.read_bytes().splitlines(keepends=True), {name: row["reply"] for name, row in rows(out).items()}
    out.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    again = run("--out", out, "--batch", 2)
    assert again["answered_now"] == 3 and again["metrics"].keys() == whole["metrics"].keys()
    for name, row in again["metrics"].items():  # in other batches, so equal but for rounding
        assert row == pytest.approx(whole["metrics"][name], rel=1e-5)
    assert {name: row["reply"] for name, row in rows(out).items()} == replies
    monkeypatch.setattr(omni_jax, "load", lambda *_, **__: pytest.fail("nothing is left to do"))
    assert run("--out", out)["metrics"] == again["metrics"]
    out.write_bytes(lines[0][:9])  # killed before the settings were written
    with pytest.raises(pytest.fail.Exception):
        run("--out", out)


def test_other_settings_are_no_continuation(run, tmp_path):
    out = tmp_path / "out.jsonl"
    run("--out", out, "--limit", 1)
    assert run("--out", out, "--limit", 2)["answered_now"] == 1
    before = out.read_bytes()
    for words, message in ((["--max-new-tokens", "9"], "max_new_tokens 6, and now it is 9"),
                           (["--metrics", "exact"], r"metrics \[\], and now it is \['exact'\]"),
                           (["--system", "Be brief."], "system None, and now it is 'Be brief.'")):
        with pytest.raises(OmniError, match=f"--out .*out.jsonl: was written with {message}; give the same"):
            run("--out", out, *words)
    with pytest.raises(OmniError, match="manifest_sha256"):
        run("--out", out, lines=LINES[:3])
    assert out.read_bytes() == before
    for text in ("something else\n", "no line's end", '{"id": "x"}\n', before.decode() + "{}\n"):
        out.write_text(text)
        with pytest.raises(OmniError, match="give another name or remove"):
            run("--out", out)
        assert out.read_text() == text


def test_broken_examples_are_named(run, tmp_path):
    broken = ["{", line("x", "y", id="story"), {"messages": []}, line("x", "y", metric="wver"),
              line("x", "y", boxes=[1]),
              line("x", "y", metric="choice"), line([{"type": "image", "image": "missing.png"}], "y", id="gone"),
              line("x" * 40_000, "y", id="long"), line("x", "six", metric="numeric"),
              line("x", "y", id="pictureless", size=[3, 4]), {"messages": [{"role": "user", "content": "unanswered"}]}]
    sentences = ["jsonl:2: is not valid JSON", "stands twice", "conversation: is empty",
                 "no 'wver', did you mean 'wer'", "boxes", "choice: wants choices", "missing.png", "exceed",
                 "holds no number", "no picture", "wants references"]
    with pytest.raises(OmniError, match=r"8 of 12 examples are broken, more than --max-broken 0.01 .*; …") as told:
        run(lines=[LINES[0], *broken])
    assert "\n" not in str(told.value)
    told = run("--max-broken", "0.95", "--out", tmp_path / "out.jsonl", lines=[LINES[0], *broken])
    assert told["examples"] == 12 and len(told["broken"]) == 11 and told["metrics"]["wer"]["n"] == 1
    failed = {row["id"] for row in rows(tmp_path / "out.jsonl").values() if "error" in row}
    assert failed == {"gone", "long", "pictureless"}
    named = [f"{where}: {sentence}" for where, sentence in told["broken"].items()]
    for sentence in sentences:
        assert any(sentence in text for text in named), sentence


def test_kinds_are_told_apart(run, monkeypatch):
    """Each by itself, beside all; one kind alone is all."""
    right = line("x", "six", id="a", kind="spoken", metric=["wer", "exact"])
    lines = [right, line("y", "two six", id="b", kind="spoken", metric="wer"), line("z", "seven", id="c", kind="seen")]
    monkeypatch.setattr(evaluate, "_replies",
                        lambda omni, batch, asking: {example.id: Reply("six", [], {}) for example, _ in batch})
    told = run(lines=lines)
    values = {kind: {name: (row["n"], row["value"]) for name, row in own.items()} for kind, own in
              {"": told["metrics"], **told["kinds"]}.items()}
    assert values == {"": {"wer": (2, pytest.approx(1 / 3)), "exact": (2, 0.5)},
                      "spoken": {"wer": (2, pytest.approx(1 / 3)), "exact": (1, 1.0)}, "seen": {"exact": (1, 0.0)}}
    printed = [row.split() for row in evaluate.table(told).splitlines()]
    assert ["wer", "spoken", "2", "0.3333"] in [row[:4] for row in printed]
    assert ["exact", "2", "0.5000"] in [row[:3] for row in printed]
    assert run(lines=[right])["kinds"] == {}
    told = run(lines=[right, line("z", "seven", id="c")])  # one that names none is counted among all
    assert told["kinds"].keys() == {"spoken"} and told["kinds"]["spoken"]["exact"]["value"] == 1
    assert ["exact", "2", "0.5000"] in [row.split()[:3] for row in evaluate.table(told).splitlines()]


def test_media_of_others_or_none(run, tmp_path):
    """Each question with the picture of the next of its kind, the last with the first's; and with none."""
    asked = lambda name, kind: line([{"type": "image", "image": f"/{name}"}, "Hm", {"type": "text", "text": "What?"}],
                                    name, id=name, kind=kind)
    manifest = tmp_path / "asked.jsonl"
    manifest.write_text("\n".join(map(json.dumps, [
        asked("a", "one"), asked("b", "one"), asked("x", "two"), asked("c", "one"), asked("y", "two"),
        line("Hi", "Ho", id="plain", kind="two")])))
    examples, _ = read(Source(str(manifest)))
    shown = lambda how: {example.id: example.question[0]["content"] for example in with_media(examples, how)}
    assert shown("given")["a"] == [{"type": "image", "image": "/a"}, "Hm", {"type": "text", "text": "What?"}]
    swapped = shown("swapped")
    assert swapped.pop("plain") == shown("none")["plain"] == "Hi"
    assert {name: content[0]["image"] for name, content in swapped.items()} == {
        "a": "/b", "b": "/c", "c": "/a", "x": "/y", "y": "/x"}
    assert swapped["a"][1:] == shown("none")["x"] == ["Hm", {"type": "text", "text": "What?"}]
    with pytest.raises(OmniError, match="id where: has no other example of its kind"):
        run("--media", "swapped")


def test_frames_at_other_times(run, omni):
    """What is heard stays where it was, and so do stills; a video's frames keep their order."""
    video = {"type": "video", "video": str(PICTURE.with_name("video.mp4")), "resized_height": 56, "resized_width": 56}
    ask = lambda *content: line([*content, {"type": "text", "text": "When?"}], "Now.", metric="nll")
    still = {**LOOK[0], "image": str(PICTURE)}
    prompt = omni.prompt(ask(video, still)["messages"][:1], use_audio_in_video=True)
    changed = mistimed(prompt, 0)
    factors = [a.seconds_per_grid / b.seconds_per_grid for a, b in zip(changed.pictures, prompt.pictures, strict=True)
               if b.seconds_per_grid]
    assert len(factors) == 1 and 1 / MISTIMED <= factors[0] <= MISTIMED and factors[0] != 1
    assert changed.clips is prompt.clips and changed.pictures[1].seconds_per_grid == 0
    lines = [{**ask(each), "kind": kind} for kind, each in (("moving", video), ("still", still))]
    given, other = (run("--media", media, "--use-audio-in-video", lines=lines)["kinds"]
                    for media in ("given", "mistimed"))
    assert given["still"] == other["still"] and given["moving"] != other["moving"]


def test_every_line_draws_for_itself():
    """Whatever stands beside it; so the lines of an evaluation are independent of one another."""
    names = ("1", "2", "train-00001", "train-00002")
    draws = [[evaluate.line_seed(seed, name) for name in names] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] and len({*draws[0], *draws[2]}) == 8 and min(map(min, draws)) >= 0


@pytest.mark.parametrize("content, expected", [
    ([{"type": "audio", "audio": "a.wav", "speaker": "A"}], {"type": "audio", "audio": "a.wav", "speaker": "A"}),
    (["Hi", {"type": "audio_url", "audio_url": {"url": "a.wav"}}], {"type": "audio", "audio": "a.wav"}),
    ([{"audio_url": "a.wav", "codes": [1]}], {"type": "audio", "audio": "a.wav", "codes": [1]}), ("Hi", {}),
    ([{"type": "text", "text": "Hi"}], {})])
def test_the_sound_of_a_turn_in_every_spelling(content, expected):
    assert sound_of({"role": "assistant", "content": content}) == expected


@pytest.mark.parametrize("words, message", [
    (["--metrics", "exat"], "did you mean 'exact'"), (["--batch", "0"], "--batch: 0 must be 1 or more"),
    (["--max-broken", "2"], "--max-broken"), (["--out", "nowhere/x"], "--out nowhere/x: its directory"),
    (["--out", "."], "is a directory"), (["--manifest", "gone.jsonl"], "gone.jsonl: cannot be read"),
], ids=str)
def test_mistakes_are_told_in_one_sentence(run, words, message):
    with pytest.raises(OmniError) as error:
        run(*words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_boxes_of_the_picture_as_it_is(run, tmp_path, omni, monkeypatch):
    """A box drawn on the whole picture is wanted where the resized picture has it."""
    height, width = next(info.size for info in omni.prompt([{"role": "user", "content": [
        {**LOOK[0], "image": str(PICTURE)}]}]).media)
    monkeypatch.setattr(evaluate, "_replies", lambda omni, batch, asking: {
        example.id: Reply(f'{{"bbox_2d": [0, 0, {width / 2}, {height / 4}]}}', [], {}) for example, _ in batch})
    told = run(lines=[line(LOOK, "", metric=["box_iou", "point_in_box"], boxes=[[0, 0, 500, 250]], size=[1000, 1000])])
    assert told["metrics"]["box_iou"]["value"] == pytest.approx(1) and told["metrics"]["point_in_box"]["value"] == 1


def test_the_command_prints_a_table(checkpoint_7b, tmp_path, capsys):
    """With the checkpoint loaded from disk, LLaMA-Factory's form and metrics for all lines."""
    manifest = tmp_path / "manifest.jsonl"
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    manifest.write_text(json.dumps({"conversations": turns}))
    words = ["--model", str(checkpoint_7b), "--manifest", str(manifest), "--mesh", "model=1", "--max-new-tokens", "3"]
    assert evaluate.main([*words, "--form", "sharegpt", "--metrics", "cer,perplexity"]) is None
    printed = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in printed[1:3]] == [["cer", "1"], ["perplexity", "1"]]
    assert printed[0].startswith("metric") and printed[3].startswith("1 examples, 1 answered now, 0 broken")


def test_every_metric_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert ", ".join(METRICS) in capsys.readouterr().out


def test_results_without_a_file():
    results = Results(None, {})
    results.add({"id": "x"})
    assert results.lines == {"x": {"id": "x"}}
