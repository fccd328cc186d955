"""The model that comes with the package: what it answers, and that transformers gives the same answers."""

import numpy as np
import pytest
from PIL import Image

import omni_jax
from omni_jax import OmniError
from omni_jax.inference import loading

SAMPLES = loading.ASSETS / "samples"
MOST_BYTES = 40_000_000
ANSWERS = {
    ("butterfly", "What do you see?"): "A butterfly.",
    ("butterfly", "What is it?"): "A butterfly.",
    ("drawing", "What colour is the taxi?"): "Yellow.",
}
OPTIONS = {"max_new_tokens": 24, "return_audio": False}


def asked(question, *pictures):
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def heard(*others):
    """The sample question, asked aloud after or before what else is shown."""
    shown = ({"type": "image", "image": each} if isinstance(each, Image.Image) else {"type": "text", "text": each}
             for each in others)
    return [{"role": "user", "content": [{"type": "audio", "audio": str(SAMPLES / "question.flac")}, *shown]}]


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


def test_transformers_gives_the_same_answers(tiny):
    pytest.importorskip("torch")
    from tools import parity

    reference = parity.reference_model(loading.ASSETS / "omni-tiny")
    network, given = tiny.network, list(prompts())
    assert len(given) >= 20
    answers = set()
    for conversation in given:
        prompt = tiny.prompt(conversation)
        inputs = parity.reference_inputs(network.config, [prompt], False)
        theirs = reference.generate(**inputs, max_new_tokens=24, do_sample=False, repetition_penalty=1.0,
                                    eos_token_id=list(network.ends))[0, len(prompt.token_ids):].tolist()
        theirs = theirs[:-1] if theirs[-1] in network.ends else theirs
        ours = tiny.generate(conversation, **OPTIONS)
        assert list(ours.token_ids) == theirs, tiny.processor.tokenizer.decode(np.array(theirs))
        answers.add(ours.text)
    assert len(answers) > 5
