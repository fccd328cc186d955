"""Rows of the Talker: teacher-forced, they are the steps that inference makes one by one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax import OmniError, sharding
from omni_jax.data.batch import Example, Turn
from omni_jax.inference.networks import abstract_networks
from omni_jax.training.batch import SpokenBatch
from omni_jax.training.config import DataConfig, MediaBudget, SpeechConfig, TrainConfig
from omni_jax.training.objectives import preference, spoken_hidden, talker
from omni_jax.training.packing import to_batch
from omni_jax.training.utterances import Utterance, masked, talker_rows, utterances
from omni_jax.weights import load_params

CONVERSATIONS = [
    [{"role": "user", "content": "Say something."}],
    [{"role": "system", "content": "Speak."},
     {"role": "user", "content": [{"type": "image", "image": np.full((56, 84, 3), 90, np.uint8)}, "What is it?",
                                  {"type": "audio", "audio": np.sin(np.arange(9000) / 9).astype(np.float32)}]}],
]
MEDIA = MediaBudget(audio_blocks=3, frame_pairs=((4, 3),), pictures=2)


@functools.cache
def networks(directory, config):
    """Thinker and Talker as training has them, on one device."""
    mesh = sharding.make_mesh("")
    abstract = abstract_networks(config, mesh, jnp.float32, scanned=True, names=("thinker", "talker"))
    params = load_params(directory, config, {name: tree for name, (_, tree) in abstract.items()})
    return {name: nnx.merge(graphdef, params[name]) for name, (graphdef, _) in abstract.items()}


@pytest.fixture(scope="module")
def said(talking):
    """Conversations with the greedy replies and codes that the model gives."""
    replies = [talking.generate(conversation, temperature=0.0, repetition_penalty=1.0, max_new_tokens=9, seed=1,
                                talker_temperature=0.0, talker_repetition_penalty=1.0, talker_max_new_tokens=23,
                                speaker="Ethan") for conversation in CONVERSATIONS]
    return [example_of(talking, *said) for said in zip(CONVERSATIONS, replies, strict=True)]


def example_of(omni, conversation, reply):
    """The last token drawn stands for the end mark: both replies ran into their limit."""
    prompt = omni.prompt(conversation)
    assert len(reply.token_ids) == 9
    read, end = len(prompt.token_ids), len(prompt.token_ids) + len(reply.token_ids) - 1
    tokens = np.append(prompt.token_ids, reply.token_ids).astype(np.int32)
    sound = {"audio": None, "codes": reply.codes.tolist(), "speaker": "Ethan"}
    return Example(dataclasses.replace(prompt, token_ids=tokens), np.arange(end + 1) >= read, (Turn(read, end, sound),))


def batch_of(rows, omni, pairs=False, length=224, steps=448):
    """rows of examples -> SpokenBatch."""
    draw = np.random.default_rng(0)
    own = [[utterances(e, omni.config, omni.speakers, 0.0, pairs, draw) for e in row] for row in rows]
    firsts = [np.cumsum([0, *(len(e.learn) for e in row)])[:-1] for row in rows]
    placed = [list(zip(first.tolist(), u, strict=True)) for first, u in zip(firsts, own, strict=True)]
    return SpokenBatch(to_batch(rows, length, omni.config, MEDIA), talker_rows(placed, steps, omni.config))


RUN = TrainConfig("", DataConfig(()), dtype="float32", remat="none")


def test_teacher_forced_codes_are_those_of_inference(talking, talking_7b, said):
    """Greedy codes have the greatest logits of those that may be drawn, whatever shares the row."""
    models, config = networks(talking_7b, talking.config), talking.config
    batch = batch_of([said[::-1], said[:1]], talking)
    hidden, _ = jax.jit(lambda batch: spoken_hidden(models, config, RUN, batch))(batch)
    logits = np.array(models["talker"].logits(hidden))
    never = np.arange(logits.shape[-1]) >= config.token2wav_config.dit_config.codec_rows
    never[[config.talker_config.tts_codec_end_token_id, config.talker_config.tts_codec_pad_token_id]] = False
    logits[..., never] = -np.inf
    rows = batch.speech
    codes = (rows.weights > 0) & (rows.targets != config.talker_config.tts_codec_end_token_id)
    assert codes.sum() == 2 * len(said[0].turns[0].sound["codes"]) + len(said[1].turns[0].sound["codes"]) > 40
    np.testing.assert_array_equal(logits.argmax(-1)[codes], rows.targets[codes])


def test_a_wrong_step_is_seen(talking, talking_7b, said):
    """The comparison above fails if a step's place, text or code is another."""
    models, config = networks(talking_7b, talking.config), talking.config
    batch = batch_of([said], talking)
    hidden = jax.jit(lambda batch: spoken_hidden(models, config, RUN, batch)[0])
    right = hidden(batch)
    learnt = batch.speech.weights[0] > 0
    for field in ("beyond", "text", "code", "source"):
        other = getattr(batch.speech, field) + (batch.speech.weights > 0) * 3
        moved = batch._replace(speech=batch.speech._replace(**{field: other}))
        assert np.abs(hidden(moved) - right)[0][learnt].max() > 1e-3, field


def test_packed_equals_alone(talking, talking_7b, said):
    models, config = networks(talking_7b, talking.config), talking.config
    together = talker(models, config, RUN, batch_of([said], talking))
    alone = [talker(models, config, RUN, batch_of([[example]], talking)) for example in said]
    for name, value in together.items():
        np.testing.assert_allclose(value, sum(each[name] for each in alone), rtol=2e-5, err_msg=name)


def test_what_the_thinker_learns_beside_adds_up(talking, talking_7b, said):
    """A token's loss weighs what it is told to beside a code's, however the batch is cut into micro-batches."""
    models, config = networks(talking_7b, talking.config), talking.config
    run = dataclasses.replace(RUN, speech=SpeechConfig(text_weight=0.3))
    loss = jax.jit(lambda batch, run=run: talker(models, config, run, batch))
    together, speech = loss(batch_of([said], talking)), talker(models, config, RUN, batch_of([said], talking))
    alone = [loss(batch_of([[example]], talking)) for example in said]
    for name, value in together.items():
        np.testing.assert_allclose(value, sum(each[name] for each in alone), rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(together["loss"], speech["loss"] + 0.3 * together["text_cross_entropy"], rtol=1e-5)
    assert together["text_cross_entropy"] > 1


def test_no_end_is_learnt_where_none_was_drawn(talking, said):
    """The end mark weighs nothing after codes that were cut off, and all else does as before."""
    pairs = with_worse(said)
    cut = with_worse(said, worse_cut_off=True)
    whole, short = (batch_of([each], talking, pairs=True).speech for each in (pairs, cut))
    ends = np.flatnonzero(whole.weights[0] != short.weights[0])
    assert (short.targets[0, ends] == talking.config.talker_config.tts_codec_end_token_id).all()
    assert (whole.segments[0, ends] % 2 == 0).all() and len(ends) == len(said)
    for name, field in whole._asdict().items():
        assert name == "weights" or np.array_equal(field, getattr(short, name)), name


def with_worse(said, **more):
    """The same turns as pairs: better than five codes of the same kind."""
    worse = {"worse": [7] * 5, **more}
    return [dataclasses.replace(e, turns=tuple(dataclasses.replace(t, sound=t.sound | worse) for t in e.turns))
            for e in said]


def test_preference_is_the_published_formula(talking, talking_7b, said):
    """Loss, and gradient of the head's weight, from logits on in float64: arXiv 2305.18290, equation 7."""
    config, models = talking.config, networks(talking_7b, talking.config)
    pairs = with_worse(said)
    batch = batch_of([pairs, pairs[:1]], talking, pairs=True)
    head = models["talker"].codec_head.weight[...]
    reference = jax.tree.map(lambda x: x, models["talker"])
    reference.codec_head.weight = nnx.Param(head + 0.05 * jnp.sin(jnp.arange(head.size)).reshape(head.shape))
    graphdef, params = nnx.split(models["talker"])

    def loss(weight):
        policy = nnx.merge(graphdef, params)
        policy.codec_head.weight = nnx.Param(weight)
        return preference(models | {"talker": policy, "reference": reference}, config, RUN, batch)["loss"]

    ours, slope = jax.value_and_grad(loss)(head)
    hidden = np.asarray(spoken_hidden(models, config, RUN, batch)[0], np.float64)
    theirs, gradient, rows = 0.0, np.zeros(head.shape), batch.speech
    shares = lambda weight: scores_of(hidden @ np.asarray(weight, np.float64).T)
    policy, other = shares(head), shares(reference.codec_head.weight[...])
    for b, segment in [(0, 1), (0, 3), (1, 1)]:
        steps = [np.flatnonzero((rows.segments[b] == segment + i) & (rows.weights[b] > 0)) for i in (0, 1)]
        gains = [sum((policy - other)[b, s, rows.targets[b, s]]) for s in steps]
        margin = RUN.speech.beta * (gains[0] - gains[1])
        theirs += np.log1p(np.exp(-margin))
        for sign, own in zip((1, -1), steps, strict=True):
            wanted = np.eye(head.shape[0])[rows.targets[b, own]] - np.exp(policy[b, own])
            gradient -= sign * RUN.speech.beta / (1 + np.exp(margin)) * wanted.T @ hidden[b, own]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    np.testing.assert_allclose(slope, gradient, atol=1e-4 * np.abs(gradient).max())


def scores_of(logits):
    """Log shares, float64."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_speakers_are_drawn_apart_from_the_text(talking, said):
    voices = lambda apart, sound: [utterances(
        dataclasses.replace(said[0], turns=(dataclasses.replace(said[0].turns[0], sound=sound),)), talking.config,
        talking.speakers, apart, False, np.random.default_rng(i))[0].voice for i in range(40)]
    named = said[0].turns[0].sound
    assert set(voices(0.0, named)) == {talking.speakers["Ethan"].bos_token}
    for drawn in (voices(1.0, named), voices(0.0, {**named, "speaker": None})):
        assert min(drawn.count(s.bos_token) for s in talking.speakers.values()) > 10


@pytest.mark.parametrize(("sound", "said_of_it"), [
    (None, "no spoken turn"), ({"audio": "a.wav"}, "a.wav: has no codes; make them with tools.make_codes"),
    ({"codes": [1, 99999]}, "outside"), ({"codes": [0.5]}, "whole numbers"), ({"codes": []}, "there are none"),
    ({"codes": [1], "speaker": "Nobody"}, "'Nobody' is unknown"), ({"codes": [1], "worse": None}, "has no worse"),
])
def test_speech_that_cannot_be_learnt(talking, said, sound, said_of_it):
    example = dataclasses.replace(said[0], turns=(dataclasses.replace(said[0].turns[0], sound=sound),))
    with pytest.raises(OmniError, match=said_of_it):
        utterances(example, talking.config, talking.speakers, 0.0, "worse" in (sound or {}), np.random.default_rng(0))


def test_a_checkpoint_without_speakers_is_told(talking, said):
    with pytest.raises(OmniError, match="has no speakers"):
        utterances(said[0], talking.config, {}, 0.0, False, np.random.default_rng(0))


def test_masked_codes_are_learnt_though_they_are_not_given(talking):
    said = Utterance(2, 4, np.arange(400) % 50, 7)
    hidden = masked(said, 0.3, talking.config, np.random.default_rng(0))
    ours, before = (talker_rows([[(0, [each])]], 500, talking.config) for each in (hidden, said))
    for name, rows in ours._asdict().items():
        if name != "code":
            np.testing.assert_array_equal(rows, getattr(before, name))
    other = ours.code != before.code
    assert set(ours.code[other]) == {talking.config.talker_config.tts_codec_mask_token_id}
    assert not other[0, :4].any() and 0.2 < other.sum() / 400 < 0.4
    assert masked(said, 0.0, talking.config, np.random.default_rng(0)).given.tolist() == said.codes.tolist()
