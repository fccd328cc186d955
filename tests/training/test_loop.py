"""The loop: runs that are killed, resumed, moved, starved of disk, or fed nonsense."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.training.checkpoints import read_trained
from omni_jax.training.loop import train
from omni_jax.training.record import lines
from tests.training.conftest import changed
from tests.weights.test_convert import small_disk  # noqa: F401 (a fixture)

TIMINGS = ("seconds", "tokens_per_second", "seconds_waiting_for_data")


def start(run, workdir, tmp_path, *more) -> subprocess.Popen:
    """`python -m tools.train` of a run in a process of its own, on one device."""
    config = tmp_path / "config.py"
    config.write_text("import json\nfrom omni_jax.training.config import TrainConfig, from_json\n"
                      f"config = from_json(TrainConfig, json.loads({json.dumps(dataclasses.asdict(run))!r}))\n")
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    return subprocess.Popen([sys.executable, "-m", "tools.train", str(config), "--workdir", str(workdir), *more],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Waits for a step's line."""
    while process.poll() is None and not any(line["step"] >= step for line in lines(workdir)):
        time.sleep(0.01)


def computed(workdir: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines(workdir)]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    place = tmp_path_factory.mktemp("whole")
    process = start(changed(run, steps=8), place / "run", place)
    assert process.wait() == 0, process.stderr.read()
    return place / "run"


def test_killed_and_started_again_it_is_the_same_run(run, whole, tmp_path):
    """Once killed at once, at a random step; once asked to end, behind what the first left and well before the end."""
    workdir, run = tmp_path / "run", changed(run, steps=8)
    for number, step, status in ((signal.SIGKILL, random.randint(1, 4), -signal.SIGKILL), (signal.SIGTERM, 6, 1)):
        process = start(run, workdir, tmp_path)
        until(process, workdir, step)
        process.send_signal(number)
        assert process.wait() == status  # so that a script does not go on with half a run
    assert start(run, workdir, tmp_path).wait() == 0
    assert computed(workdir) == computed(whole) and len(computed(whole)) == 8
    ours, theirs = read_trained(workdir)[2], read_trained(whole)[2]
    assert all(np.array_equal(ours[path], leaf) for path, leaf in theirs.items())
    assert (whole / "curves.png").stat().st_size > 5000 and list((whole / "tensorboard").iterdir())


@pytest.mark.slow
def test_it_goes_on_on_another_mesh(run, whole, tmp_path):
    run = changed(run, steps=8)
    train(run, tmp_path / "run", until=4)
    last = train(changed(run, mesh="data=2,fsdp=2,model=2"), tmp_path / "run")
    assert last["loss"] == pytest.approx(computed(whole)[-1]["loss"], rel=1e-5)


def test_a_half_written_checkpoint_is_not_taken(run, whole, tmp_path):
    half = whole / "checkpoints" / "9.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "junk").write_text("junk")
    assert read_trained(whole)[1] == 8
    with pytest.raises(OmniError, match="has no checkpoint of step 9; there are 4, 6, 8"):
        read_trained(whole, 9)


def test_another_configuration(run, whole):
    other = changed(run, steps=8, seed=3, optimizer=dataclasses.replace(run.optimizer, learning_rate=1.0))
    with pytest.raises(OmniError, match=r"another run: optimizer.learning_rate was 0.003 and is 1.0, seed was 0"):
        train(other, whole)
    with pytest.raises(OmniError, match="model: /nowhere is not a directory"):
        train(changed(run, model="/nowhere"), whole)


def test_a_loss_that_is_no_number(run, tmp_path):
    run = changed(run, checkpoint_every=1, optimizer=dataclasses.replace(run.optimizer, learning_rate=1e30,
                                                                         warmup_steps=0, clip_norm=0.0))
    with pytest.raises(OmniError, match=r"step (\d): the loss is (nan|inf) .*train.jsonl:\d+.*; the checkpoint of"):
        train(run, tmp_path / "run")
    _, step, params = read_trained(tmp_path / "run")
    assert 1 <= step < 4 and all(np.isfinite(leaf).all() for leaf in params.values())


def test_a_full_disk(run, small_disk, tmp_path):  # noqa: F811
    with pytest.raises(OmniError, match=r"checkpoint of step 2 could not be written \(it needs .* MB and the disk has"):
        train(run, small_disk / "run")
    assert len(lines(small_disk / "run")) == 2


def test_a_disk_that_fills_up_meanwhile(run, tmp_path, monkeypatch):
    """orbax's own failure, behind our check of the room."""
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def full(self, step, **arguments):
        if step > 2:
            raise ValueError("RESOURCE_EXHAUSTED: Error writing /x: No space left on device")
        return save(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(OmniError, match=r"step 4 .*no space is left on the disk\); the one of step 2 is whole"):
        train(run, tmp_path / "run")
    assert read_trained(tmp_path / "run")[1] == 2


@pytest.mark.parametrize("settings, told", [
    (["--set", "optimizer.learning_rat=1"], "--set optimizer.learning_rat: there is no such key; did you mean "
                                            "optimizer.learning_rate?"),
    (["--set", "steps=many"], "--set steps: 'many' is not a valid int"),
    (["--processes", "2"], "--coordinator, --processes and --process go together")])
def test_settings_that_do_not_exist(run, tmp_path, settings, told):
    process = start(run, tmp_path / "run", tmp_path, *settings)
    assert process.wait() == 1 and told in process.stderr.read() and not (tmp_path / "run").exists()
