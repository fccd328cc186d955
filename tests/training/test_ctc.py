"""An audio encoder that learns what is said and when: the loss by hand, what does not count, and that meshes change
nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from omni_jax.errors import OmniError
from omni_jax.training import setup as setups
from omni_jax.training.feed import put
from omni_jax.training.packing import to_batch
from omni_jax.training.step import make_eval_step
from omni_jax.weights.names import nest
from tests.test_sharding import name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow

sound = lambda samples, pitch: {"type": "audio", "audio": np.sin(np.arange(samples) / pitch).astype(np.float32)}
# The second has a token twice in a row; the third has no sound, and the fourth's is shorter than what is said.
TURNS = [([sound(9000, 9), "What?"], "a tone"), ([sound(12000, 3)], "goo"), (["Hello."], "Good day."),
         ([sound(1600, 5)], "A long story.")]


@pytest.fixture(scope="module")
def ctc(run):
    apart = dataclasses.replace(run.data, pack=False)
    return changed(run, data=apart, objective="ctc", train=("thinker/audio/*", "thinker/lm_head/*"), z_loss=0.0)


@pytest.fixture(scope="module")
def weighed(ctc):
    """(sums, batch, the Thinker) of TURNS, and the examples."""
    setup = setups.prepare(ctc)
    talk = lambda asked, answer: [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    examples = [[setup.processor.example(talk(*turn))] for turn in TURNS]
    made = to_batch(examples, 96, setup.plan.config, ctc.data.media)
    batch = put(jax.tree.map(lambda x: x[None], made), setup.mesh)
    with jax.set_mesh(setup.mesh):
        state, frozen = setups.load(setup)
        sums = make_eval_step(setup.plan)(state.params, frozen, batch)
        tree = nest(dict(sorted({**state.params, **frozen}.items())))
        thinker = nnx.merge(setup.plan.graphdefs["thinker"], tree["thinker"])
    return sums, made, thinker, setup.plan.config.thinker_config.pad_token_id


def test_the_loss_by_hand(weighed):
    sums, batch, thinker, blank = weighed
    audio = batch.audio[0]
    vectors = np.asarray(thinker.audio(audio.mel, audio.frames)).reshape(-1, thinker.head.weight.shape[-1])
    destination = audio.destination.reshape(-1)
    length, total, tokens = batch.token_ids.shape[1], 0.0, 0
    for row in (0, 1):
        own = np.flatnonzero(destination // length == row)
        own = own[np.argsort(destination[own])]
        logits = np.asarray(thinker.head(thinker.decoder.norm(vectors[own])), np.float64)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        said = batch.token_ids[row][batch.weights[row] > 0]
        assert (row == 1) == bool((said[1:] == said[:-1]).any())
        total -= np.log(_of_all_paths(probabilities, [int(token) for token in said], blank))
        tokens += len(said)
    assert sums["weight"] == tokens
    np.testing.assert_allclose(sums["loss"], total, rtol=1e-4)


def _of_all_paths(probabilities: np.ndarray, said: list[int], blank: int) -> float:
    """The summed probability of the paths that say it, by going through them frame by frame: (what was said so far,
    the last symbol) -> probability."""
    states = {(0, blank): 1.0}
    for frame in probabilities:
        following: dict[tuple[int, int], float] = {}
        for (count, last), so_far in states.items():
            symbols = {blank: count, **({last: count} if last != blank else {})}
            if count < len(said) and said[count] != last:
                symbols[said[count]] = count + 1
            for symbol, reached in symbols.items():
                key = (reached, symbol)
                following[key] = following.get(key, 0.0) + so_far * float(frame[symbol])
        states = following
    return sum(value for (count, _), value in states.items() if count == len(said))


def test_a_mesh_gives_the_same_losses_and_they_fall(ctc):
    given = batches(ctc, 2) * 3
    losses, params, _ = follow(ctc, given)
    assert losses[-1] < losses[0]
    assert {path.split("/")[1] for path in params} == {"audio", "lm_head"}
    split, _, _ = follow(changed(ctc, mesh=name((2, 2, 2))), given[:2])
    np.testing.assert_allclose(split, losses[:2], rtol=1e-4)


def test_it_wants_one_conversation_a_row(ctc):
    packed = changed(ctc, data=dataclasses.replace(ctc.data, pack=True))
    with pytest.raises(OmniError, match="one conversation a row"):
        setups.prepare(packed)
