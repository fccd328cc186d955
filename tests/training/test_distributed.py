"""Two processes that find each other learn as one does."""

import dataclasses
import socket

import pytest

from tests.training.conftest import changed
from tests.training.test_loop import computed, start


def test_two_processes_train_as_one(run, tmp_path):
    media = dataclasses.replace(run.data.media, frame_pairs=((4, 4),), audio_blocks=4)
    data = dataclasses.replace(run.data, pack=False, window=1, length=128, media=media)
    run = changed(run, data=data, steps=4, mesh=None, checkpoint_every=2, eval_every=0)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [start(run, tmp_path / "two", tmp_path, "--coordinator", address, "--processes", "2", "--process", str(i))
            for i in range(2)]
    for process in both:
        assert process.wait() == 0, process.stderr.read()[-2000:]
    alone = start(run, tmp_path / "one", tmp_path)
    assert alone.wait() == 0, alone.stderr.read()[-2000:]
    two, one = computed(tmp_path / "two"), computed(tmp_path / "one")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-5)
    assert len({line["loss"] for line in one}) == 4
