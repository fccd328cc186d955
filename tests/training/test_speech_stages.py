"""The stages that train the voice keep the loop's promises: meshes, accumulation, resuming, several processes."""

import dataclasses
import random
import signal

import jax
import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.data.processor import Processor
from omni_jax.training import setup as setups
from omni_jax.training.checkpoints import read_trained
from omni_jax.training.config import OptimizerConfig
from omni_jax.training.datasets import held_out_batches, train_batches
from omni_jax.training.loop import train
from tests.test_sharding import SPLITS, name
from tests.training.conftest import changed
from tests.training.speech_runs import TRAIN, speech_run, write_manifest
from tests.training.test_distributed import start_two
from tests.training.test_loop import computed, start, until
from tests.training.trajectories import batches, follow


@pytest.fixture(scope="module")
def speech(talking_7b, tmp_path_factory):
    """A checkpoint and spoken conversations."""
    return talking_7b, write_manifest(tmp_path_factory.mktemp("speech"), OmniConfig.load(talking_7b))


def equal(ours, theirs, tolerance):
    for path, leaf in theirs.items():
        np.testing.assert_allclose(ours[path], leaf, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("objective", ["distill", *(pytest.param(objective, marks=pytest.mark.slow)
                                                    for objective in TRAIN if objective != "distill")])
def test_a_mesh_gives_the_same_losses(speech, objective):
    run = speech_run(objective, *speech)
    given = batches(run, 2) * 2
    losses, params, frozen = follow(run, given)
    others, other_params, still = follow(changed(run, mesh=name((2, 2, 2))), given)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    equal(other_params, params, 1e-5)
    assert len(set(losses)) == 4
    before = setups.load_params_of(setups.prepare(run))[1]
    assert before.keys() == frozen.keys() == still.keys() and not before.keys() & params.keys()
    assert all(np.array_equal(leaf, each[path]) for path, leaf in before.items() for each in (frozen, still))


@pytest.mark.slow
@pytest.mark.parametrize("objective", TRAIN)
@pytest.mark.parametrize("split", SPLITS)
def test_every_mesh_split_gives_the_same_losses(speech, objective, split):
    run = speech_run(objective, *speech)
    given = batches(run, 2) * 4
    losses, params, _ = follow(run, given)
    others, other_params, _ = follow(changed(run, mesh=name(split)), given)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    equal(other_params, params, 2e-5)


@pytest.mark.slow  # that of the Thinker is in test_step.py
@pytest.mark.parametrize("objective", ["codec", "talker"])
def test_accumulated_equals_one_large_batch(speech, objective):
    run = speech_run(objective, *speech)
    whole = batches(run, 2)
    parted = [jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[2:]), batch) for batch in whole]
    losses, params, _ = follow(run, whole)
    others, other_params, _ = follow(changed(run, accumulate=2), parted)
    np.testing.assert_allclose(others, losses, rtol=1e-5)
    equal(other_params, params, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["talker", "preference"])
def test_the_talker_learns(speech, objective):
    """The likelihood of codes rises; so does the margin of the better ones."""
    run = changed(speech_run(objective, *speech), optimizer=OptimizerConfig(learning_rate=3e-3, schedule="constant"))
    losses = follow(run, batches(run, 1) * 12)[0]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("objective", ["codec", pytest.param("vocoder", marks=pytest.mark.slow)])
def test_a_run_in_two_parts_is_one_run(speech, tmp_path, objective):
    """Memory, averages and what the data draw go on where they stood; and evaluation disturbs nothing."""
    run = speech_run(objective, *speech)
    train(run, tmp_path / "whole")
    train(changed(run, eval_every=1, eval_batches=1), tmp_path / "parts", until=2)
    train(run, tmp_path / "parts")
    held_out = lambda line: {k: v for k, v in line.items() if not k.startswith("held_out/")}
    parts, whole = ([held_out(line) for line in computed(tmp_path / place)] for place in ("parts", "whole"))
    assert parts == whole
    ours, theirs = (read_trained(tmp_path / part)[2] for part in ("parts", "whole"))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[path], leaf) for path, leaf in theirs.items())


@pytest.mark.slow
@pytest.mark.parametrize("objective", TRAIN)
def test_killed_and_started_again_it_is_the_same_run(speech, tmp_path, objective):
    run = changed(speech_run(objective, *speech), steps=8, checkpoint_every=2)
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    assert start(run, whole, tmp_path).wait() == 0
    process = start(run, workdir, tmp_path)
    until(process, workdir, random.randint(1, 6))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(run, workdir, tmp_path).wait() == 0
    assert computed(workdir) == computed(whole) and len(computed(whole)) == 8
    ours, theirs = read_trained(workdir)[2], read_trained(whole)[2]
    assert all(np.array_equal(ours[path], leaf) for path, leaf in theirs.items())


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["talker", "codec"])
def test_two_processes_train_as_one(speech, tmp_path, objective):
    run = speech_run(objective, *speech)
    run = changed(run, data=dataclasses.replace(run.data, pack=False, window=1), mesh=None)
    for process in start_two(run, tmp_path / "two", tmp_path):
        assert process.wait() == 0, process.stderr.read()[-2000:]
    alone = start(run, tmp_path / "one", tmp_path)
    assert alone.wait() == 0, alone.stderr.read()[-2000:]
    losses = [[line["loss"] for line in computed(tmp_path / place)] for place in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(set(losses[1])) == 4


@pytest.mark.parametrize(("objective", "fields", "said"), [
    ("preference", {"train": ("talker/*", "reference/*")}, "stays as it is"),
    ("flow", {"train": ("codec_encoder/*",)}, "no parameter fits"),
    ("codec", {"speech": "wrong mel"}, "bins 81 must be"),
    ("vocoder", {"speech": "wrong mel"}, "bins 81 must be"),
    ("codec", {"train": ("codec_encoder/*",)}, "token2wav/dit/codec_embed/weight must learn with objective 'codec'"),
    ("vocoder", {"dtype": "bfloat16"}, "the vocoder learns in float32 only"),
])
def test_runs_that_cannot_be(speech, objective, fields, said):
    run = speech_run(objective, *speech)
    if "speech" in fields:
        fields = {"speech": dataclasses.replace(run.speech, mel=dataclasses.replace(run.speech.mel, bins=81))}
    with pytest.raises(OmniError, match=said):
        setups.prepare(changed(run, **fields))


@pytest.mark.parametrize("objective", ["flow", "distill"])
def test_codes_are_needed_for_what_learns_from_them(speech, objective):
    (speech[1].parent / "uncoded.jsonl").write_text(speech[1].read_text().replace('"codes"', '"other"'))
    run = speech_run(objective, speech[0], speech[1].parent / "uncoded.jsonl")
    with pytest.raises(OmniError, match=r"12 of 12 examples are broken.*has no codes; make them with tools.make_codes"):
        batches(run, 1)


def test_pairs_are_needed_for_preference(speech, tmp_path):
    text = speech[1].read_text().replace('"worse"', '"other"')
    (speech[1].parent / "unpaired.jsonl").write_text(text)
    run = speech_run("preference", speech[0], speech[1].parent / "unpaired.jsonl")
    with pytest.raises(OmniError, match=r"12 of 12 examples are broken.*has no worse; make them with tools.make_pref"):
        batches(run, 1)


def test_codes_are_masked_in_training_alone(speech):
    run = speech_run("talker", *speech, masked=1.0)
    processor = Processor.load(speech[0], OmniConfig.load(speech[0]))
    mask = processor.config.talker_config.tts_codec_mask_token_id
    learnt, judged = (next(iter(make(run, processor))).arrays.speech for make in (train_batches, held_out_batches))
    assert (learnt.code == mask).sum() > 500 and not (judged.code == mask).any()
    assert not (learnt.targets == mask).any()
