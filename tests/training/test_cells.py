"""Encoders that learn what each of their vectors shows: the loss by hand, what does not count, and that meshes change
nothing."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.special

from omni_jax.errors import OmniError
from omni_jax.training import setup as setups
from omni_jax.training.config import MediaBudget
from omni_jax.training.objectives import NEWLINE
from tests.test_sharding import name
from tests.training.conftest import changed
from tests.training.trajectories import batches, follow, weighed

SOUND = {"type": "audio", "audio": np.sin(np.arange(1600) / 9).astype(np.float32)}
PICTURES = [{"type": "image", "image": np.full((56, size, 3), shade, np.uint8), "min_pixels": 784}
            for size, shade in ((84, 20), (56, 200))]
# More vectors than lines; more lines than vectors; a sound; nothing shown.
TURNS = [([PICTURES[0], "What?"], "One cat\nOne\nTwo red cats"), ([PICTURES[1]], "a\nb\nc d\ne\nf\ng"),
         ([SOUND], "beep\nbeep"), (["Hello."], "Good\nday")]


@pytest.fixture(scope="module")
def cells(run):
    train = ("thinker/vision/*", "thinker/audio/*", "thinker/lm_head/*")
    return changed(run, data=dataclasses.replace(run.data, pack=False), objective="cells", train=train, z_loss=0.0)


def test_the_loss_by_hand(cells):
    sums, batch, thinker = weighed(setups.prepare(cells), [[turn] for turn in TURNS], 96)
    length, found = batch.token_ids.shape[1], []
    for vectors, at in ((thinker.audio(batch.audio[0].mel, batch.audio[0].frames), batch.audio[0].destination),
                        (thinker.vision(batch.vision[0].pixels, batch.vision[0].cells), batch.vision[0].destination)):
        logits = np.asarray(thinker.head(thinker.decoder.norm(vectors)), np.float64)
        found += zip(at.reshape(-1), scipy.special.log_softmax(logits, -1).reshape(-1, logits.shape[-1]), strict=True)
    losses, certainty, counts = [], 0.0, []
    for row in range(len(TURNS)):
        shown = [shares for at, shares in sorted(found, key=lambda pair: pair[0]) if at // length == row]
        *said, _ = batch.token_ids[row][batch.weights[row] > 0].tolist()  # without the mark at its end
        breaks = [-1, *(i for i, token in enumerate(said) if token == NEWLINE), len(said)]
        lines = [said[first + 1 : last] for first, last in itertools.pairwise(breaks)]
        assert len(lines) == TURNS[row][1].count("\n") + 1
        counts.append((len(shown), len(lines)))
        for shares, line in zip(shown, lines, strict=False):
            losses.append(-shares[line].mean() - np.log(len(line)))
            certainty += np.exp(shares[line]).sum()
    assert [np.sign(vectors - lines) for vectors, lines in counts] == [1, -1, 0, -1] and counts[3][0] == 0
    assert sums["weight"] == len(losses) == sum(map(min, counts))
    np.testing.assert_allclose(sums["loss"], sum(losses), rtol=1e-4)
    np.testing.assert_allclose(sums["certainty"], certainty, rtol=1e-4)


@pytest.mark.slow
def test_a_mesh_gives_the_same_losses_and_they_fall(cells):
    given = batches(cells, 2) * 3
    losses, params, _ = follow(cells, given)
    assert losses[-1] < losses[0]
    assert {path.split("/")[1] for path in params} == {"vision", "audio", "lm_head"}
    split, _, _ = follow(changed(cells, mesh=name((2, 2, 2))), given[:2])
    np.testing.assert_allclose(split, losses[:2], rtol=1e-4)


@pytest.mark.parametrize("fields, message", [({"pack": True}, "wants one conversation a row"),
                                             ({"media": MediaBudget()}, "learns from media alone")])
def test_settings_that_it_cannot_run_with(cells, fields, message):
    with pytest.raises(OmniError, match=message):
        setups.prepare(changed(cells, data=dataclasses.replace(cells.data, **fields)))
