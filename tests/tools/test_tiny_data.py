"""What omni-tiny hears in training: texts that never mix, sounds as they reach a microphone, lines that are read."""

import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile

from omni_jax import OmniError
from omni_jax.inference import loading
from omni_jax.training.config import Source
from omni_jax.training.manifests import Manifest
from tools.tiny_data import (
    asking,
    frames,
    hearing,
    lexicon,
    packages,
    replying,
    sentences,
    speaking,
    splicing,
    texts,
    voices,
    voicing,
    words,
)


@pytest.mark.parametrize("draw", [texts.digits, texts.sentence])
def test_held_out_texts_are_decided_by_the_text(draw):
    rng = np.random.default_rng(0)
    drawn = {draw(rng) for _ in range(500)}
    share = np.mean([texts.is_held_out(text) for text in drawn])
    assert 0.1 < share < 0.3
    assert all(text[0].isupper() and text.endswith(".") for text in drawn)
    assert all(texts.is_held_out(text.upper()) == texts.is_held_out(text) for text in drawn)


def test_commands_and_questions_differ_and_have_answers():
    assert len(set(texts.COMMANDS)) == len(texts.COMMANDS) >= 100
    questions = texts.questions()
    assert questions["What is three plus four?"] == "Seven."
    assert questions["Which day comes before Monday?"] == "Sunday."
    assert all(answer.endswith((".", "?")) for answer in questions.values())


def test_noise_has_the_power_that_is_asked_for():
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(16_000) * 0.2)
    noise = voices.noisy(wave, 10.0, rng) - wave
    loud = wave[np.abs(wave) > 0.05]
    assert 10 * np.log10(np.mean(loud**2) / np.mean(noise**2)) == pytest.approx(10.0, abs=0.01)


def test_what_is_heard_is_seeded_and_neither_silent_nor_clipped():
    wave = np.sin(np.arange(24_000) * 0.1).astype(np.float32)
    takes = [voices.heard(wave, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(takes[0], takes[1])
    assert takes[0].shape != takes[2].shape or not np.array_equal(takes[0], takes[2])
    assert all(0.05 < np.abs(take).max() < 1 and take.dtype == np.float32 for take in takes)
    assert all(0.8 < len(take) / 16_000 < 2.2 for take in takes)


class Hum:
    """A voice that needs no packages."""

    def say(self, text, voice, speed=1.0):
        return np.sin(np.arange(int(2_400 * len(text) / speed)) * (0.05 + 0.01 * (voice in voices.FLITE))).astype("f4")

    def timed(self, text, voice, speed=1.0):
        """A tenth of a second for each letter, a mark or a space, after half a second of silence."""
        ends = 0.1 / speed * np.cumsum([0, *(len(word) + 1 for word in text.split())])
        times = [(word, 0.5 + begin, 0.5 + end)
                 for word, (begin, end) in zip(text.split(), itertools.pairwise(ends), strict=True)]
        return np.pad(self.say(text, voice, speed), (12_000, 0)), times


def spelt(text, voice):
    """As phones.timed, of a flite that says "ah" for each letter, 0.1 s each."""
    return np.zeros(1600 * len(text), "f4"), 16_000, [("ah", 0.1 * (i + 1)) for i in range(len(text))]


def test_lines_of_hearing(tmp_path, monkeypatch):
    monkeypatch.setattr(hearing.phones, "timed", spelt)
    counts = hearing.Counts(kokoro=34, flite=12, held_out=6, takes=2)
    written = hearing.write(tmp_path / "hearing", Hum(), counts, seed=3, workers=1)
    lines = {part: [json.loads(line) for line in (tmp_path / f"hearing/{part}.jsonl").open()] for part in written}
    train, held_out = lines["train"], lines["held_out"]
    assert written == {part: len(own) for part, own in lines.items()}
    for part, takes in (("train", 34 * 2 + 12), ("held_out", 6 * 3 * 2)):  # each take is spelt, and not asked about
        own = lines[f"phones_{part}"]
        said = {line["id"]: line["messages"][1]["content"] for line in lines[part]}
        assert len(own) == takes
        assert all(line["messages"][1]["content"] == " d" * len(said[line["id"]]) for line in own)
        assert all([item["type"] for item in line["messages"][0]["content"]] == ["audio"] for line in own)
    for part in ("train", "held_out"):  # what a question's answer is, then what was asked
        answered = {line["id"]: line["messages"] for line in lines[part] if line["kind"].startswith("answer")}
        assert {line["id"]: line["messages"][:2] for line in lines[f"answers_{part}"]} == answered
        for line in lines[f"answers_{part}"]:
            assert texts.questions()[line["messages"][3]["content"]] == line["messages"][1]["content"]
    assert {line["voice"] for line in held_out} == set(voices.HELD_OUT)
    assert not {line["voice"] for line in train} & set(voices.HELD_OUT)
    spoken = lambda lines: {line["messages"][1]["content"] for line in lines if line["kind"].startswith("sentence")}
    assert spoken(train) and spoken(held_out) and not spoken(train) & spoken(held_out)
    assert {"typed", "silence"} <= {line["kind"] for line in train}
    judged = {line["kind"].split("-")[0]: line.get("metric") for line in held_out}
    assert judged["sentence"] == judged["digits"] == "wer" and judged.get("answer") is None
    manifest = Manifest(Source(str(tmp_path / "hearing/held_out.jsonl")))
    assert all(manifest[i].conversation()[-1]["role"] == "assistant" for i in range(len(manifest)))
    for line in held_out:
        assert (tmp_path / "hearing" / line["messages"][0]["content"][0]["audio"]).is_file()


def test_frames_have_a_phone_each(tmp_path, monkeypatch):
    """Of 40 ms, by what sounds in their middle, however the speech is stretched."""
    phones = [("pau", 0.5), ("k", 0.6), ("ae", 1.0), ("t", 1.1), ("pau", 1.5)]
    tone = np.sin(np.arange(24_000) / 9).astype("f4")
    monkeypatch.setattr(frames.phones, "timed", lambda text, voice: (tone, 16_000, phones))
    assert frames.write(tmp_path / "frames", 6, 2, seed=1, workers=1) == {"train": 6, "held_out": 2}
    for part, count in (("train", 6), ("held_out", 2)):
        lines = [json.loads(line) for line in (tmp_path / f"frames/{part}.jsonl").open()]
        assert len(lines) == count
        for line in lines:
            sound = soundfile.info(tmp_path / "frames" / line["messages"][0]["content"][0]["audio"])
            said = line["messages"][1]["content"].split()
            assert sound.samplerate == 16_000 and abs(0.04 * len(said) - sound.duration) <= 0.04
            runs = [(letter, len(list(run))) for letter, run in itertools.groupby(said)]
            letters = "".join(letter for letter, _ in runs)
            assert letters == frames.phones.spelt(["pau", "k", "ae", "t", "pau"]).replace(" ", "")
            shares = np.array([length for _, length in runs]) * 0.04 / sound.duration
            np.testing.assert_allclose(shares, np.diff([0, 0.5, 0.6, 1.0, 1.1, 1.5]) / 1.5, atol=0.04)


def test_pictures_are_asked_about_aloud(tmp_path):
    """Each line shows a picture of `seeing`, has its answer, and lets its question be heard; voices are kept apart."""
    seen = tmp_path / "seeing"
    seen.mkdir()
    questions = [*asking.QUESTIONS, "Where is the cat?"]
    for part in ("train", "held_out"):
        own = [{"id": f"{part}-{i}", "kind": "name" if i % 9 else "position", "messages": [
            {"role": "user", "content": [{"type": "image", "image": f"pictures/{part}-{i}.jpg"},
                                         {"type": "text", "text": question}]},
            {"role": "assistant", "content": f"Answer {i}."}]} for i, question in enumerate(questions * 3)]
        (seen / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    written = asking.write(tmp_path / "asking", Hum(), asking.Counts(train=10, held_out=5, takes=2), seed=2, workers=1)
    assert written == {"train": 10, "held_out": 5}
    speakers = {}
    for part in written:
        lines = [json.loads(line) for line in (tmp_path / f"asking/{part}.jsonl").open()]
        speakers[part] = {line["voice"] for line in lines}
        for line in lines:
            picture, sound = line["messages"][0]["content"]
            number = int(line["id"].split("-")[1])
            assert line["messages"][1]["content"] == f"Answer {number}." and number % 9
            assert picture["image"] == f"../seeing/pictures/{line['id']}.jpg"
            assert (tmp_path / "asking" / sound["audio"]).is_file()
            assert int(sound["audio"].split("-")[1]) == questions.index(questions[number % 9])
    assert speakers["held_out"] <= set(voices.HELD_OUT) and not speakers["train"] & set(voices.HELD_OUT)
    with pytest.raises(OmniError, match="make it first"):
        asking.write(tmp_path / "elsewhere" / "asking", Hum(), asking.Counts(), seed=2)


def test_what_was_said_is_kept(tmp_path, monkeypatch):
    """An interrupted run says nothing twice; another text, voice or speed is another recording."""
    monkeypatch.setattr(voices.importlib.util, "find_spec", lambda name: name)
    said = []
    sound = lambda self, text, voice, speed: said.append(text) or 1.5 * np.sin(np.arange(2_400, dtype="f4") * speed)
    monkeypatch.setattr(voices.Voices, "_synthesised", sound)
    for _ in range(2):
        kept = voices.Voices(packages.Packages(tmp_path), tmp_path / "kept")
        waves = [kept.say(*each) for each in (("a", "af_bella", 1.0), ("a", "af_bella", 0.9), ("b", "af_bella", 1.0),
                                              ("a", "am_echo", 1.0))]
    assert said == ["a", "a", "b", "a"] and len(list((tmp_path / "kept").iterdir())) == 4
    assert all(wave.dtype == np.float32 and np.abs(wave).max() == pytest.approx(1, abs=1e-4) for wave in waves)


def test_the_same_seed_gives_the_same_jobs():
    jobs = [list(hearing.training(hearing.Counts(20, 20, 1, 2), seed)) for seed in (0, 0, 1)]
    assert jobs[0] == jobs[1] != jobs[2]


def spoken_words(text):
    return re.findall(r"[a-z]+", text.lower())


def test_the_vocabulary_is_said_whole_and_nothing_else():
    """At least 1,500 words, each of them in training; none beyond them in what is held out, some in what is outside."""
    counts = speaking.Counts()
    train, held_out, outside = (list(speaking.plan(part, getattr(counts, part), 0))
                                for part in ("train", "held_out", "outside"))
    more = list(voicing.plan("train", voicing.Counts().train, 0))
    said = {word for job in [*train, *more] for word in spoken_words(job.text)}
    assert len(sentences.vocabulary()) >= 1500 and sentences.vocabulary() <= said
    card = (loading.ASSETS / "omni-tiny/README.md").read_text()
    assert " ".join(sorted(sentences.vocabulary())) in " ".join(card.split())
    assert all(set(spoken_words(job.text)) <= said for job in held_out)
    assert all(set(spoken_words(job.text)) - said for job in outside)
    assert not {job.text for job in [*train, *more]} & {job.text for job in held_out}
    assert {job.speaker for job in train} == set(speaking.VOICES)
    assert all(5 <= len(job.text.split()) <= 10 for job in [*held_out, *outside])
    assert list(speaking.plan("train", 50, 0)) == train[:50] != list(speaking.plan("train", 50, 1))


def test_words_outside_are_none_of_the_vocabulary():
    outside = {word for text in words.OUTSIDE.values() for word in spoken_words(text)}
    assert len(outside) > 80 and not outside & sentences.vocabulary()


@pytest.mark.parametrize("text, expected", [
    ("the baker sold a old hat.", "The baker sold an old hat."), ("a honest man", "An honest man"),
    ("she has a useful tool.", "She has a useful tool."), ("a university", "A university"), ("a uncle", "An uncle"),
    ("a unusual hut", "An unusual hut"), ("a house", "A house"), ("a unicorn", "A unicorn")])
def test_articles(text, expected):
    assert sentences.written(text) == expected


@pytest.mark.parametrize("base, third", [("go", "goes"), ("watch", "watches"), ("carry", "carries"), ("play", "plays"),
                                         ("take", "takes"), ("mix", "mixes"), ("guess", "guesses")])
def test_third_persons(base, third):
    assert sentences.third_person(base) == third


def test_lines_of_speaking(tmp_path):
    written = speaking.write(tmp_path / "speaking", Hum(), speaking.Counts(6, 4, 2), 0, workers=1)
    assert written == {"train": 6, "held_out": 4, "outside": 2}
    for part, count in written.items():
        manifest = Manifest(Source(str(tmp_path / f"speaking/{part}.jsonl")))
        assert len(manifest) == count
        for i in range(count):
            asked, told = manifest[i].conversation()
            text, sound = told["content"]
            assert asked["content"] in {form.format(text["text"]) for form in speaking.ASKED}
            assert sound["speaker"] in speaking.VOICES
            wave, rate = soundfile.read(tmp_path / "speaking" / sound["audio"])
            assert rate == 24_000 and np.abs(wave).max() == pytest.approx(speaking.PEAK, abs=1e-3)
            assert 0.05 * rate <= np.flatnonzero(np.abs(wave) > 0.01)[0] <= 0.2 * rate


def test_lines_of_voicing(tmp_path):
    """Kokoro says what it says for `hearing`, held-out voices apart; flite says pieces as well; nobody is named."""
    heard = hearing.Counts(kokoro=34, flite=12, held_out=2)
    written = voicing.write(tmp_path / "voicing", Hum(), voicing.Counts(30, 6), heard, 0, workers=1)
    assert written == {"kokoro_train": 34, "kokoro_held_out": 6, "flite_train": 30, "flite_held_out": 6}
    told = {}
    for part in written:
        manifest = Manifest(Source(str(tmp_path / f"voicing/{part}.jsonl")))
        turns = [manifest[i].conversation()[1]["content"] for i in range(len(manifest))]
        told[part] = [text["text"] for text, _ in turns]
        for _, sound in turns:
            assert "speaker" not in sound and soundfile.info(tmp_path / "voicing" / sound["audio"]).samplerate == 24_000
    assert told["kokoro_train"] == [job.text for job in hearing.training(heard, 0)][:34]
    assert min(len(text.split()) for text in told["flite_train"]) < 5


@pytest.mark.parametrize("part, held_out", [("train", False), ("held_out", True)])
def test_pieces_are_of_sentences_of_their_part(part, held_out):
    jobs = list(voicing.plan(part, 300, 1))
    assert {job.voice for job in jobs} == set(voices.FLITE)
    whole = [job.text for job in jobs if job.kind == "sentence"]
    assert whole and all(texts.is_held_out(text) == held_out for text in whole)
    pieces = [job.text for job in jobs if job.kind == "piece"]
    assert {len(text.split()) for text in pieces} == set(range(1, voicing.PIECE + 1))
    assert all(text[0].isupper() and text[-1] in ".?" and text[-2] != "," for text in pieces)


def test_parts_are_joined_if_they_are_those_pinned(tmp_path):
    parts = [tmp_path / "one", tmp_path / "two"]
    for part, text in zip(parts, (b"a", b"b"), strict=True):
        part.write_bytes(text)
    with pytest.raises(OmniError, match="whole: its parts are not those that were pinned"):
        packages._join(parts, tmp_path / "whole", "0" * 64)
    assert not (tmp_path / "whole").exists() and parts[0].exists()
    packages._join(parts, tmp_path / "whole", hashlib.sha256(b"ab").hexdigest())
    assert (tmp_path / "whole").read_bytes() == b"ab" and not parts[0].exists()


def test_a_missing_npm_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OmniError, match=r"npm: is missing; install it \(Node.js has npm\)"):
        packages._run("npm", "--version")


def test_lines_of_replying(tmp_path, monkeypatch):
    """Both voices say each answer, in reply to writing and, in manifests of their own, to what has that answer."""
    sound = {"type": "audio", "audio": "sounds/a.flac"}
    picture = {"type": "image", "image": "pictures/a.jpg"}
    shown = {"seeing": ([picture, {"type": "text", "text": "Where is it?"}], "Up."), "hearing": ([sound], "Down."),
             "watching": ([{"type": "video", "video": "videos/a.mp4", "fps": 4}], "Before."),
             "asking": ([{"type": "image", "image": "../seeing/pictures/b.jpg"}, sound], "Down.")}
    for part, (asked, told) in shown.items():
        (tmp_path / part).mkdir()
        line = {"messages": 2 * [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]}
        for name in ("train", "held_out"):
            (tmp_path / part / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    monkeypatch.setattr(replying, "answers", lambda: ["Up.", "Down.", "Before."])
    monkeypatch.setattr(replying, "OFTEN", 2)  # so that of 1, 2 and 6 askers there are 1, 2 and 4 replies with a take
    written = replying.write(tmp_path / "replying", Hum(), replying.Counts(3, 3, 2), 0, workers=1)
    takes = {"train": 2 * (3 * 2 + 3) * 4, "shown_train": 2 * 2 * (1 + 2 + 1)}
    assert written == {**takes, "held_out": 3 * 4, "shown_held_out": 0, "known_train": 2 * (3 * 3 + 1 + 2 + 1)}
    assert "<word> = before | down | up;" in (tmp_path / "replying/words.jsgf").read_text()
    contexts = defaultdict(list)
    for part in ("train", "shown_train"):
        for line in (json.loads(line) for line in (tmp_path / f"replying/{part}.jsonl").open()):
            asked, (text, said) = (message["content"] for message in line["messages"])
            assert soundfile.info(tmp_path / "replying" / said["audio"]).samplerate == 24_000
            contexts[part, text["text"]].append(asked)
            if part == "train":
                assert asked in {form.format(text["text"]) for form in speaking.ASKED}
    known = [json.loads(line)["messages"] for line in (tmp_path / "replying/known_train.jsonl").open()]
    assert {said["content"][1]["audio"] for _, said in known} == {
        f"sounds/fixed-{number:03d}-{speaker}-0.flac" for number in range(3) for speaker in speaking.VOICES}
    assert sum(isinstance(asked["content"], str) for asked, _ in known) == 2 * 3 * 3
    assert contexts["shown_train", "Up."] == 4 * [[{"type": "image", "image": "../seeing/pictures/a.jpg"},
                                                   {"type": "text", "text": "Where is it?"}]]
    clip = {"type": "video", "video": "../watching/videos/a.mp4", "fps": 4}
    assert contexts["shown_train", "Before."] == 4 * [[clip]]
    assert {item["audio"] for asked in contexts["shown_train", "Down."] for item in asked if "audio" in item} <= {
        "../hearing/sounds/a.flac", "../asking/sounds/a.flac"}
    assert {item["image"] for asked in contexts["shown_train", "Down."] for item in asked if "image" in item} <= {
        "../asking/../seeing/pictures/b.jpg"}


def test_replies_cover_all_answers_and_hold_texts_out():
    answers = replying.answers()
    assert len(set(answers)) == len(answers) and set(texts.questions().values()) | set(texts.COMMANDS) <= set(answers)
    assert {"A butterfly.", "Yellow.", "Twelve.", "On the left.", "I see no picture."} <= set(answers)
    train, held_out = (list(replying.drawn(part, 40, 0)) for part in ("train", "held_out"))
    assert all(texts.is_held_out(job.text) for job in held_out)
    assert not any(texts.is_held_out(job.text) for job in train)
    assert {job.kind for job in train} == {"several", "digits", "sentence"}


def test_a_recogniser_knows_the_answers_of_one_word():
    words = replying.single_words()
    assert {"twelve", "meow", "yellow", "after"} <= set(words) and not any(" " in word for word in words)


def test_what_is_replied_to_must_be_there(tmp_path):
    with pytest.raises(OmniError, match="seeing: is not there, and it is replied to; make it first"):
        replying.write(tmp_path / "replying", Hum(), replying.Counts(1, 1, 1), 0, workers=1)
    assert not (tmp_path / "replying").exists()


class Kokoro(voices.Voices):
    """With two frames of a fortieth of a second for each phoneme, and espeak's spelling but for a few words."""

    def __init__(self):
        self._style = lambda voice: np.zeros((voices.LONGEST + 1, 1, 256), "f4")
        self._vocabulary = dict.fromkeys("abcdefghijklmnopqrstuvwxyz .,", 1)
        self._timer, self._espeak = self, self

    def run(self, _, inputs):
        return [np.full(inputs["tokens"].size, 2.0, "f4")]

    def phonemize(self, _, text):
        return [[text.lower().replace("in the", "inthe").replace("at all of", "atallof")]]

    def say(self, text, voice, speed=1.0):
        return np.zeros(24_000, "f4")


def test_words_have_times():
    """A word begins with the space before it; two that are written as one share its time by their phonemes."""
    found = Kokoro().timed("We sat in the sun.", "af_heart")[1]
    assert [word for word, _, _ in found] == ["We", "sat", "in", "the", "sun."]
    begins = np.array([1, 3, 7, 10, 13]) * 2 * voices.FRAME - voices.LAG  # frames before: two for each phoneme, and one
    np.testing.assert_allclose([begin for _, begin, _ in found], begins)
    np.testing.assert_allclose([end for _, _, end in found], [*begins[1:], (len("we sat inthe sun.") + 2) * 0.05])
    assert Kokoro().timed("None at all of it.", "af_heart")[1] == []


def test_lines_of_splicing(tmp_path, monkeypatch):
    """Times of the words count from the file's start, which is a margin before the speech."""
    monkeypatch.setattr(replying, "answers", lambda: ["Up.", "In the middle."])
    counts = splicing.Counts(speaking=4, replying=2)
    written = splicing.write(tmp_path / "splicing", Hum(), counts, 0, workers=1)
    lines = [json.loads(line) for line in (tmp_path / "splicing/train.jsonl").open()]
    assert written["train"] == written["timed"] == len(lines) == 4 + 2 * 2 + 2
    for line in lines:
        text, sound = line["messages"][1]["content"]
        length = soundfile.info(tmp_path / "splicing" / sound["audio"]).duration
        assert [word for word, _, _ in line["words"]] == text["text"].split()
        assert line["words"][0][1] == pytest.approx(splicing.MARGIN, abs=0.02)
        assert line["words"][-1][2] == pytest.approx(length - splicing.MARGIN, abs=0.03)


def test_words_are_put_together_from_what_was_recorded():
    """Codes tell here which word they are of: hundreds for the word, units for the place in it."""
    units = splicing.Units()
    units.add([("A", 0.1, 0.2), ("red", 0.2, 0.4), ("cat.", 0.4, 0.6)],
              [*range(5), *range(100, 105), *range(200, 210), *range(300, 310), *range(50, 53)])
    units.add([("Red,", 0.0, 0.2), ("big.", 0.2, 0.4)], [*range(400, 410), *range(500, 510)])
    said = [units.spoken("A big red cat.", np.random.default_rng(seed)) for seed in range(20)]
    for codes in said:
        of_words = [code for code in codes if code >= 100]
        assert of_words == [*range(100, 105), *range(500, 510), *range(200, 210), *range(300, 310)]
    assert {codes[0] for codes in said} == {0, 100} and {codes[-1] for codes in said} == {52, 309}  # silences
    assert units.spoken("A blue cat.", np.random.default_rng(0)) is None
    assert units.spoken("Red, big.", np.random.default_rng(0))[-20:-10] != [*range(200, 210)]


def test_spliced_texts_are_learnt_ones(tmp_path):
    """Only words that a voice has said are put together, and no held-out sentence; pieces are what was said."""
    source = sentences.Sentences(np.random.default_rng(1))
    said = [source.draw() for _ in range(60)]
    lines = [{"words": [[word, 0.1 * i, 0.1 * (i + 1)] for i, word in enumerate(text.split())], "messages": [
        {}, {"content": [{}, {"speaker": speaker, "codes": list(range(5 * len(text.split())))}]}]}
        for text in said for speaker in speaking.VOICES]
    (tmp_path / "coded.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    splicing.main([str(tmp_path / "coded.jsonl"), str(tmp_path / "spliced.jsonl"), "--count", "40"])
    manifest = Manifest(Source(str(tmp_path / "spliced.jsonl")))
    known, answers = {word.rstrip(".,?").lower() for text in said for word in text.split()}, replying.answers()
    speakers = []
    for i in range(len(manifest)):
        text, sound = manifest[i].conversation()[1]["content"]
        assert {word.rstrip(".,?").lower() for word in text["text"].split()} <= known
        if manifest[i].record()["kind"] == "piece":
            piece = text["text"].rstrip(".?").lower()
            assert len(piece.split()) <= splicing.LONGEST and any(piece in each.lower() for each in said)
        else:
            assert text["text"] in answers or not texts.is_held_out(text["text"])
        speakers.append(sound["speaker"])
    assert speakers == 20 * ["Heart", "Michael"]
    (tmp_path / "coded.jsonl").write_text("{}\n")
    with pytest.raises(OmniError, match="has no line with the times of its words"):
        splicing.main([str(tmp_path / "coded.jsonl"), str(tmp_path / "more.jsonl")])
    assert not (tmp_path / "more.jsonl").exists()


def test_a_lexicon_has_every_word_by_itself(tmp_path, monkeypatch):
    """Of its sentences, by both voices, in whole codes with silence around."""
    jobs = list(lexicon.plan())
    for voice in speaking.VOICES.values():
        said = [lexicon.bare(job.text) for job in jobs if job.voice == voice]
        assert all(len(words) == 1 for words in said)
        assert sorted(words[0] for words in said) == sorted(sentences.vocabulary())
    monkeypatch.setattr(lexicon, "plan", lambda: iter(jobs[:3]))
    assert lexicon.write(tmp_path / "lexicon", Hum(), workers=1) == {"train": 3}
    line = json.loads((tmp_path / "lexicon" / "train.jsonl").read_text().splitlines()[0])
    text, sound = line["messages"][1]["content"]
    wave, rate = soundfile.read(tmp_path / "lexicon" / sound["audio"])
    around = lexicon.AROUND * lexicon.SAMPLES
    assert (text["text"], rate, len(wave) % lexicon.SAMPLES) == ("A.", 24_000, 0)
    assert not wave[:around].any() and not wave[-around:].any() and wave[around:-around].any()


@pytest.fixture
def coded(tmp_path):
    """Words of the lexicon with codes: silence is 0, a word its number, twice."""
    (tmp_path / "sounds").mkdir()
    around = [0] * lexicon.AROUND
    with (tmp_path / "coded.jsonl").open("w") as file:
        for job in lexicon.plan():
            line = splicing.line_of_codes(job, [*around, job.seed + 1, job.seed + 1, *around])
            line["messages"][1]["content"][1]["audio"] = "sounds/a.flac"
            file.write(json.dumps(line) + "\n")
    soundfile.write(tmp_path / "sounds" / "a.flac", np.arange(10 * lexicon.SAMPLES) / 10_000, 24_000)
    return tmp_path / "coded.jsonl"


def test_a_word_is_always_said_in_one_way(coded):
    """Silence is around the whole, and a little between words; the recordings are joined as the codes are."""
    heart, number = lexicon.read(coded)["Heart"], sorted(sentences.vocabulary()).index
    cats, sleep = number("cats") + 1, number("sleep") + 1
    said = [0, 0, 0, 0, cats, cats, 0, 0, sleep, sleep, 0, 0, cats, cats, 0, 0, 0, 0]
    assert heart.codes("Cats sleep, cats.") == said
    sound, size = heart.sound("Cats sleep.") * 10_000 / lexicon.SAMPLES, lexicon.SAMPLES
    np.testing.assert_allclose(sound[::size], [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9], atol=0.01)


def test_spelt_texts_are_put_together_from_the_lexicon(coded, tmp_path):
    """Neither held-out sentences nor what is known by heart; or, if these are asked for, held-out ones alone."""
    words = sorted(sentences.vocabulary())
    for part in ("train", "held_out"):
        more = ["--held-out"] if part == "held_out" else []
        lexicon.main([str(coded), str(tmp_path / part), "--count", "40", *more])
        for line in map(json.loads, (tmp_path / part).open()):
            text, sound = line["messages"][1]["content"]
            assert [words[code - 1] for code in sound["codes"] if code][::2] == lexicon.bare(text["text"])
            assert texts.is_held_out(text["text"]) == (part == "held_out")
            assert text["text"] not in replying.answers() and "audio" not in sound
    lexicon.main([str(coded), str(tmp_path / "joined"), "--count", "3", "--sounds", str(tmp_path / "waves")])
    for line in map(json.loads, (tmp_path / "joined").open()):
        sound = line["messages"][1]["content"][1]
        assert soundfile.info(tmp_path / sound["audio"]).frames == lexicon.SAMPLES * len(sound["codes"])


def test_a_drill_brings_every_word_as_often_as_any_other(coded, tmp_path):
    """Also those that sentences hardly ever bring; and its questions do not tell them."""
    lexicon.main([str(coded), str(tmp_path / "drill"), "--drill", "--count", "2000"])
    lines = [json.loads(line) for line in (tmp_path / "drill").open()]
    said = [lexicon.bare(line["messages"][1]["content"][0]["text"]) for line in lines]
    assert {len(words) for words in said} == set(range(3, 11))
    counts = Counter(word for words in said for word in words)
    assert len(counts) > 0.99 * len(sentences.vocabulary()) and max(counts.values()) < 25  # of 7 on average
    assert {line["messages"][0]["content"] for line in lines} == {"What is said?"}
    numbers = sorted(sentences.vocabulary())
    for line, drilled in zip(lines[:50], said, strict=False):
        codes = line["messages"][1]["content"][1]["codes"]
        assert [numbers[code - 1] for code in codes if code][::2] == drilled


def test_a_lexicon_lacks_no_word(coded, tmp_path):
    coded.write_text("".join(coded.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(OmniError, match="lacks 1 words of both voices"):
        lexicon.main([str(coded), str(tmp_path / "more.jsonl")])
    assert not (tmp_path / "more.jsonl").exists()
