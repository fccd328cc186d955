"""Encoders that learn words without order: what the loss is, and that rows, meshes and order change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax.training import setup as setups
from omni_jax.training.feed import put
from omni_jax.training.packing import to_batch
from omni_jax.training.step import make_eval_step
from omni_jax.weights.names import nest
from tests.test_sharding import name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow

TRAIN = ("thinker/vision/*", "thinker/audio/*", "thinker/lm_head/*", "thinker/decoder/norm/*")
SOUND = {"type": "audio", "audio": np.sin(np.arange(9000) / 9).astype(np.float32)}
PICTURES = [{"type": "image", "image": np.full((50, 60, 3), shade, np.uint8)} for shade in (20, 90)]


@pytest.fixture(scope="module")
def words(run):
    return changed(run, objective="words", train=TRAIN, z_loss=0.0)


@pytest.fixture(scope="module")
def weigh(words):
    """(sums of rows of conversations [(asked, answer), …], their examples, the networks)."""
    setup = setups.prepare(words)

    def weigh(rows):
        talk = lambda asked, answer: [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        examples = [[setup.processor.example(talk(*turn)) for turn in row] for row in rows]
        length = max(sum(len(each.learn) for each in row) for row in examples) + 5
        made = to_batch(examples, length, setup.plan.config, words.data.media)
        batch = put(jax.tree.map(lambda x: x[None], made), setup.mesh)
        with jax.set_mesh(setup.mesh):
            state, frozen = setups.load(setup)
            sums = make_eval_step(setup.plan)(state.params, frozen, batch)
            tree = nest(dict(sorted({**state.params, **frozen}.items())))
            thinker = nnx.merge(setup.plan.graphdefs["thinker"], tree["thinker"])
        return sums, made, thinker

    return weigh


def test_the_loss_is_that_of_the_mean_of_what_is_seen(weigh):
    sums, batch, thinker = weigh([[([PICTURES[0]], "It is dark.")]])
    windows = batch.vision[0]
    seen = np.asarray(thinker.vision(windows.pixels, windows.cells))
    mean = seen[windows.destination.reshape(seen.shape[:-1]) < batch.token_ids.size].mean(0)
    scores = np.asarray(thinker.head(thinker.decoder.norm(jnp.asarray(mean))), np.float64)
    said = batch.token_ids[batch.weights > 0]
    by_hand = (np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[said]).sum()
    assert sums["weight"] == len(said) > 3
    np.testing.assert_allclose(sums["loss"], by_hand, rtol=1e-5)


def test_a_conversation_sees_its_own_media_alone(weigh):
    asks = ([PICTURES[0], "What?"], [SOUND, PICTURES[1]], [SOUND], [*PICTURES])
    turns = [(ask, f"It is {i}.") for i, ask in enumerate(asks)]
    packed, apart = weigh([turns])[0], weigh([[turn] for turn in turns])[0]
    assert packed["weight"] == apart["weight"]
    np.testing.assert_allclose(packed["loss"], apart["loss"], rtol=1e-5)


def test_where_nothing_is_shown_nothing_is_learnt(weigh):
    shown = ([PICTURES[0]], "It is dark.")
    alone, beside = weigh([[shown]])[0], weigh([[shown, (["Hello."], "Good day.")]])[0]
    assert alone["weight"] == beside["weight"]
    np.testing.assert_allclose(alone["loss"], beside["loss"], rtol=1e-5)


def test_a_mesh_gives_the_same_losses_and_they_fall(words):
    given = batches(words, 3) * 2
    losses, params, _ = follow(words, given)
    assert losses[-1] < losses[0]
    assert {path.split("/")[1] for path in params} == {"vision", "audio", "lm_head", "decoder"}
    split, _, _ = follow(changed(words, mesh=name((2, 2, 2))), given[:2])
    np.testing.assert_allclose(split, losses[:2], rtol=1e-4)
