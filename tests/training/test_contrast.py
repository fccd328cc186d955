"""Encoders that learn which answer belongs to what: the loss by hand, and that rows and meshes change nothing."""

import functools

import numpy as np
import pytest

from omni_jax.training import setup as setups
from tests.test_sharding import name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow, weighed

TRAIN = ("thinker/vision/*", "thinker/audio/*", "thinker/lm_head/*", "thinker/decoder/norm/*")
SOUND = {"type": "audio", "audio": np.sin(np.arange(9000) / 9).astype(np.float32)}
PICTURES = [{"type": "image", "image": np.full((50, 60, 3), shade, np.uint8)} for shade in (20, 90, 200)]
TURNS = [([PICTURES[0], "What?"], "It is dark."), ([SOUND, PICTURES[1]], "A beep."), ([SOUND], "It is dark."),
         ([PICTURES[2]], "It is bright."), (["Hello."], "Good day.")]


@pytest.fixture(scope="module")
def contrast(run):
    return changed(run, objective="contrast", train=TRAIN, z_loss=0.0)


@pytest.fixture(scope="module")
def weigh(contrast):
    """(rows of conversations [(asked, answer), …]) -> their sums, their batch, and the Thinker."""
    return functools.partial(weighed, setups.prepare(contrast), length=640)


def test_the_loss_by_hand(weigh):
    """Of four conversations with media two have the same answer; the fifth shows nothing, so it does not count."""
    sums, batch, thinker = weigh([TURNS])
    towers = [(thinker.audio(batch.audio[0].mel, batch.audio[0].frames), batch.audio[0].destination),
              (thinker.vision(batch.vision[0].pixels, batch.vision[0].cells), batch.vision[0].destination)]
    length = batch.token_ids.size
    vectors = np.zeros((length, towers[0][0].shape[-1]), np.float32)
    shown = np.zeros(length, bool)
    for made, destination in towers:
        kept = destination.reshape(-1) < length
        vectors[destination.reshape(-1)[kept]] = np.asarray(made).reshape(-1, vectors.shape[-1])[kept]
        shown[destination.reshape(-1)[kept]] = True
    own = [batch.segments[0] == segment for segment in range(1, 5)]
    means = np.stack([vectors[segment & shown].mean(0) for segment in own])
    said = [batch.token_ids[0][segment & (batch.weights[0] > 0)] for segment in own]
    logits = np.asarray(thinker.head(thinker.decoder.norm(means)), np.float64)
    scores = np.array([[row[tokens].sum() for tokens in said] for row in logits])
    scores = np.exp(scores - scores.max())
    answers = np.array([answer for _, answer in TURNS[:4]])
    same = answers[:, None] == answers
    by_hand = -sum(np.log((scores * same).sum(axis) / scores.sum(axis)).sum() for axis in (0, 1)) / 2
    assert sums["weight"] == 4
    np.testing.assert_allclose(sums["loss"], by_hand, rtol=1e-4)
    right = [same[i, scores[i].argmax()] for i in range(4)]
    assert sums["accuracy"] == sum(right)


def test_rows_do_not_matter(weigh):
    packed, apart = weigh([TURNS])[0], weigh([[turn] for turn in TURNS])[0]
    for key in packed:
        np.testing.assert_allclose(packed[key], apart[key], rtol=1e-5, err_msg=key)


def test_a_mesh_gives_the_same_losses_and_they_fall(contrast):
    given = batches(contrast, 3) * 2
    losses, params, _ = follow(contrast, given)
    assert losses[-1] < losses[0]
    assert {path.split("/")[1] for path in params} == {"vision", "audio", "lm_head", "decoder"}
    split, _, _ = follow(changed(contrast, mesh=name((2, 2, 2))), given[:2])
    np.testing.assert_allclose(split, losses[:2], rtol=1e-4)
