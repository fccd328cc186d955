"""The model that comes with the package: what it answers, in text and aloud, and that transformers answers the same."""

import itertools

import numpy as np
import pytest
from PIL import Image

import omni_jax
from omni_jax import OmniError
from omni_jax.inference import loading
from omni_jax.inference.codec import Codec
from omni_jax.training import recognisers
from tools import demo
from tools.smoke_speech import grammar
from tools.speak import mel_differences
from tools.tiny_data import lexicon, replying, speaking

SAMPLES = loading.ASSETS / "samples"
MOST_BYTES = 40_000_000
MOST_CODES = 150  # 3 s
ANSWERS = {
    ("butterfly", "What do you see?"): "A butterfly.",
    ("butterfly", "What is it?"): "A butterfly.",
    ("drawing", "What colour is the taxi?"): "Yellow.",
}
OPTIONS = {"max_new_tokens": 24, "return_audio": False, "use_audio_in_video": True}


def asked(question, *pictures):
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def heard(*others):
    """The sample question, asked aloud after or before what else is shown."""
    shown = ({"type": "image", "image": each} if isinstance(each, Image.Image) else {"type": "text", "text": each}
             for each in others)
    return [{"role": "user", "content": [{"type": "audio", "audio": str(SAMPLES / "question.flac")}, *shown]}]


def watched(question):
    """Of a swan that moves, and then a beep is heard; sampled as the videos that it learnt from."""
    video = {"type": "video", "video": str(SAMPLES / demo.MOVING), **demo.WATCHED}
    return [{"role": "user", "content": [video, {"type": "text", "text": question}]}]


def sample(name):
    return Image.open(SAMPLES / f"{name}.jpg").convert("RGB")


@pytest.fixture(scope="module")
def tiny():
    return omni_jax.load("omni-tiny", mesh="")


@pytest.mark.parametrize("name, question", ANSWERS)
def test_it_sees(tiny, name, question):
    assert tiny.generate(asked(question, sample(name)), **OPTIONS).text == ANSWERS[name, question]


def test_it_hears(tiny):
    """A question asked aloud is answered, and written down if that is asked; noise says nothing."""
    assert tiny.generate(heard(), **OPTIONS).text == "Twelve."
    assert tiny.generate(heard("What is said?"), **OPTIONS).text == "What is four plus eight?"
    noise = np.random.default_rng(0).normal(0, 0.01, 24_000).astype(np.float32)
    conversation = [{"role": "user", "content": [{"type": "audio", "audio": noise}]}]
    assert tiny.generate(conversation, **OPTIONS).text == "I hear nothing."


def test_it_watches(tiny):
    """What it sees, what it hears, and which of both came first."""
    for question, answer in (("What moved?", "A swan."), ("What did you hear?", "A beep."),
                             ("Was the beep before or after it moved?", "After.")):
        assert tiny.generate(watched(question), **OPTIONS).text == answer


@pytest.mark.parametrize("speaker", ["Heart", "Michael"])
def test_a_spoken_question_is_answered_aloud(tiny, tmp_path, speaker):
    """End to end: of all words that it may answer a recogniser hears the right one in what it says, which ends."""
    pytest.importorskip("pocketsphinx")
    words = tmp_path / "words.jsgf"
    words.write_text(grammar("words", replying.single_words(), several=False))
    reply = tiny.generate(heard(), speaker=speaker, max_new_tokens=24, talker_max_new_tokens=MOST_CODES,
                          talker_temperature=0)
    assert reply.text == "Twelve." and 10 < len(reply.codes) < MOST_CODES
    assert recognisers.find(f"pocketsphinx:{words}")(reply.waveform, 24_000).text == "twelve"
    assert 0.05 < np.abs(reply.waveform).max() < 1


@pytest.mark.parametrize("speaker", ["Heart", "Michael"])
def test_it_reads_out(tiny, tmp_path, speaker):
    """Of ten sentences that it has never said a recogniser hears those that it reads out."""
    pytest.importorskip("pocketsphinx")
    texts = [job.text for job in speaking.plan("held_out", 10, seed=0)]
    spoken = [" ".join(lexicon.bare(text)) for text in texts]
    (tmp_path / "sentences.jsgf").write_text(grammar("sentences", spoken, several=False))
    conversations = [asked(f"Say: {text}") for text in texts[:3]]
    replies = tiny.generate(conversations, speaker=speaker, reply_ids=list(map(tiny.reply_ids, texts[:3])),
                            talker_max_new_tokens=500, talker_temperature=0)
    assert [reply.text for reply in replies] == texts[:3] and all(len(reply.codes) < 500 for reply in replies)
    recogniser = recognisers.find(f"pocketsphinx:{tmp_path / 'sentences.jsgf'}")
    # It drops last words now and then; three tell which sentence it is.
    heard = [recogniser(reply.waveform, 24_000).text for reply in replies]
    assert all(whole.startswith(part) and len(part.split()) >= 3 for whole, part in zip(spoken, heard, strict=False))


def test_its_codec_reads_speech(tiny, tmp_path):
    """What it says is made codes, and of these the same sound again: nearer to it than any other answer's."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    for path in (*(loading.ASSETS / "omni-tiny").iterdir(),
                 *(loading.ASSETS / "omni-tiny-codec").glob("codec_encoder.*")):
        (directory / path.name).symlink_to(path)
    codec = Codec.load(directory, needs=("codec_encoder",))
    options = {"speaker": "Heart", "talker_max_new_tokens": MOST_CODES, "talker_temperature": 0}
    twelve, other = (tiny.generate(each, max_new_tokens=24, **options) for each in (heard(), asked("What do you see?")))
    codes = codec.encode(twelve.waveform)
    assert len(codes) == len(twelve.codes)
    again = tiny.token2wav(codes, "Heart")
    apart = lambda wave: float(mel_differences(twelve.waveform, wave, codec.mel).mean())
    assert apart(again) < 0.5 * apart(other.waveform)


def test_what_it_sees_is_in_the_picture(tiny):
    """With green and blue exchanged, what was yellow is a pinkish purple; without a picture there is nothing to see."""
    red, green, blue = sample("drawing").split()
    other = Image.merge("RGB", (red, blue, green))
    assert tiny.generate(asked("What colour is the taxi?", other), **OPTIONS).text in ("Purple.", "Pink.")
    assert tiny.generate(asked("What do you see?"), **OPTIONS).text == "I see no picture."


def test_it_is_small_and_alone_of_its_name(tmp_path, monkeypatch):
    files = [path for path in (loading.ASSETS / "omni-tiny").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {"README.md", "NOTICE", "config.json", "model.safetensors"} <= {path.name for path in files}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "omni-tiny").mkdir()  # a directory of that name is what its user means
    with pytest.raises(OmniError, match=r"omni-tiny/config.json: cannot be read"):
        omni_jax.load("omni-tiny")
    with pytest.raises(OmniError, match="give a checkpoint's directory, or omni-tiny"):
        omni_jax.load("omni-tinier")


def prompts():
    """More than twenty, of every kind that it has learnt."""
    questions = ("What do you see?", "Where do you see the taxi?", "What colour is the taxi?", "How many are there?")
    for picture in map(sample, ("butterfly", "drawing")):
        shown = (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.resize((201, 305)))
        yield from (asked(question, each) for question in questions for each in shown)
    white = Image.new("RGB", (112, 112), "white")
    yield from (asked(question, white) for question in ("What is it?", "How many do you see?"))
    yield from (asked(question) for question in ("What is it?", "What colour is it?", "Where is the cat?"))
    yield asked("What is it?", str(SAMPLES / "picture.jpg"))
    asides = ((), ("What is said?",), ("Write down what you hear.",), (sample("drawing"),))
    yield from (heard(*others) for others in asides)
    yield [{"role": "user", "content": [{"type": "audio", "audio": str(SAMPLES / "speech.flac")}]}]
    yield from map(watched, ("What moved?", "Was the beep before or after it moved?", "What did you hear?"))


@pytest.mark.parametrize("of_five", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_transformers_gives_the_same_answers_and_codes(tiny, of_five):
    pytest.importorskip("torch")
    from tools import _speech_parity, parity

    reference = parity.reference_model(loading.ASSETS / "omni-tiny")
    given = [prompt for i, prompt in enumerate(prompts()) if i % 5 < of_five]
    speakers, answers = itertools.cycle(tiny.speakers), set()
    assert len(given) >= 20
    for conversation, speaker in zip(given, speakers, strict=False):
        prompt = tiny.prompt(conversation, True)
        inputs = parity.reference_inputs(tiny.network.config, [prompt], True)
        tokens, codes = _speech_parity.their_reply(tiny, reference, inputs, speaker, 24, MOST_CODES)
        ours = tiny.generate(conversation, speaker=speaker, use_audio_in_video=True, max_new_tokens=24,
                             talker_max_new_tokens=MOST_CODES, talker_temperature=0,
                             talker_repetition_penalty=_speech_parity.PENALTY)
        assert list(ours.token_ids) == tokens, tiny.processor.tokenizer.decode(np.array(tokens))
        assert ours.codes.tolist() == codes
        answers.add(ours.text)
    assert len(answers) > 5
