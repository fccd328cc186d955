"""Audio encoders that learn what is said: the losses by hand, what does not count, and that meshes change nothing."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.special

from omni_jax.errors import OmniError
from omni_jax.training import setup as setups
from tests.test_sharding import name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow, weighed

sound = lambda samples, pitch: {"type": "audio", "audio": np.sin(np.arange(samples) / pitch).astype(np.float32)}
# The second has a token twice in a row; the third has no sound, and the fourth's is shorter than what is said.
TURNS = [([sound(9000, 9), "What?"], "a tone"), ([sound(12000, 3)], "goo"), (["Hello."], "Good day."),
         ([sound(1600, 5)], "A long story.")]


@pytest.fixture(scope="module")
def listening(run):
    """(objective) -> a run of it."""
    apart = dataclasses.replace(run.data, pack=False)
    train = ("thinker/audio/*", "thinker/lm_head/*")
    return lambda objective: changed(run, data=apart, objective=objective, train=train, z_loss=0.0)


def read_off(run):
    """(sums of TURNS, batch, float64 log-probabilities of each row's vectors [n, V], blank)."""
    setup = setups.prepare(run)
    sums, made, thinker = weighed(setup, [[turn] for turn in TURNS], 96)
    audio = made.audio[0]
    vectors = np.asarray(thinker.audio(audio.mel, audio.frames)).reshape(-1, thinker.head.weight.shape[-1])
    destination, length = audio.destination.reshape(-1), made.token_ids.shape[1]
    logits = np.asarray(thinker.head(thinker.decoder.norm(vectors)), np.float64)
    order = np.argsort(destination)
    heard = [scipy.special.log_softmax(logits[order[destination[order] // length == row]], axis=-1)
             for row in range(len(TURNS))]
    return sums, made, heard, setup.plan.config.thinker_config.pad_token_id


def said(batch, row):
    return [int(token) for token in batch.token_ids[row][batch.weights[row] > 0]]


def test_ctc_by_hand(listening):
    """The third has no sound, and the fourth's is too short."""
    sums, batch, heard, blank = read_off(listening("ctc"))
    total, tokens = 0.0, [said(batch, row) for row in (0, 1)]
    assert [any(a == b for a, b in itertools.pairwise(own)) for own in tokens] == [False, True]
    for row, own in enumerate(tokens):
        total -= np.log(_of_all_paths(np.exp(heard[row]), own, blank))
    assert sums["weight"] == sum(map(len, tokens))
    np.testing.assert_allclose(sums["loss"], total, rtol=1e-4)


def test_frames_by_hand(listening):
    """Of the first two sounds' vectors those count that have a token of the answer; of the fourth's answer, the tokens
    that have a vector."""
    sums, batch, heard, _ = read_off(listening("frames"))
    pairs = [zip(row, said(batch, number), strict=False) for number, row in enumerate(heard)]
    losses = [-probabilities[token] for own in pairs for probabilities, token in own]
    counts = [min(len(row), len(said(batch, number))) for number, row in enumerate(heard)]
    assert counts[2] == 0 and counts[3] < len(said(batch, 3)) and counts[0] < len(heard[0])
    assert sums["weight"] == sum(counts)
    np.testing.assert_allclose(sums["loss"], sum(losses), rtol=1e-4)


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


@pytest.mark.parametrize("objective", ["ctc", pytest.param("frames", marks=pytest.mark.slow)])
def test_a_mesh_gives_the_same_losses_and_they_fall(listening, objective):
    run = listening(objective)
    given = batches(run, 2) * 3
    losses, params, _ = follow(run, given)
    assert losses[-1] < losses[0]
    assert {path.split("/")[1] for path in params} == {"audio", "lm_head"}
    split, _, _ = follow(changed(run, mesh=name((2, 2, 2))), given[:2])
    np.testing.assert_allclose(split, losses[:2], rtol=1e-4)


def test_they_want_one_conversation_a_row(listening):
    run = listening("ctc")
    packed = changed(run, data=dataclasses.replace(run.data, pack=True))
    with pytest.raises(OmniError, match="one conversation a row"):
        setups.prepare(packed)
