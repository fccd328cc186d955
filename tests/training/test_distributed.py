"""Two processes that find each other learn as one does, also when they are killed and started again."""

import dataclasses
import socket

import pytest

from tests.training.conftest import changed
from tests.training.test_loop import computed, start, until


@pytest.mark.slow
def test_two_processes_train_as_one(run, tmp_path):
    media = dataclasses.replace(run.data.media, frame_pairs=((4, 4),), audio_blocks=4)
    data = dataclasses.replace(run.data, pack=False, window=1, length=128, media=media)
    run = changed(run, data=data, steps=4, mesh=None, checkpoint_every=2, eval_every=0)
    two, one = tmp_path / "two", tmp_path / "one"
    both = start_two(run, two, tmp_path)
    until(both[0], two, 3)  # behind the checkpoint of step 2
    for process in both:
        process.kill()
        process.wait()
    for process in start_two(run, two, tmp_path):
        assert process.wait() == 0, process.stderr.read()[-2000:]
    alone = start(run, one, tmp_path)
    assert alone.wait() == 0, alone.stderr.read()[-2000:]
    losses = [[line["loss"] for line in computed(place)] for place in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(set(losses[1])) == 4


def start_two(run, workdir, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(run, workdir, tmp_path, "--coordinator", address, "--processes", "2", "--process", str(i))
            for i in range(2)]
