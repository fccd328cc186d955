"""Both releases at full size, with random weights: conversion within a small machine's memory, and a reply.

Run by `make test-full-size`, which shows the figures. The files go under OMNI_FULL_SIZE_DIR, else pytest's own
temporary directory, and are removed as soon as they are done with.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from omni_jax.weights import is_store, read_directory, read_store
from tests.full_size import checkpoints, measure
from tests.full_size.measure import report

pytestmark = [pytest.mark.slow, pytest.mark.full_size]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the large files go."""
    chosen = os.environ.get("OMNI_FULL_SIZE_DIR")
    directory = Path(tempfile.mkdtemp(dir=chosen)) if chosen else tmp_path_factory.mktemp("full_size")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def release_3b(place):
    """(Hugging Face directory, the store converted from it), 22 GB in all."""
    checkpoints.require_disk(place, 35)
    original, store = place / "3b", place / "3b-store"
    checkpoints.write_release(original, "3b")
    convert(original, store, "3B, Hugging Face -> store")
    yield original, store
    shutil.rmtree(original)
    shutil.rmtree(store)


def convert(source: Path, target: Path, name: str) -> measure.Watched:
    """Converts by the command and reports its figures."""
    done = measure.run("tools.convert", source, target, "--json")
    size = done.summary["bytes"]
    report(name, parameters=size // 2, gigabytes=size / 1e9, seconds=done.seconds,
           gigabytes_per_second=size / 1e9 / done.seconds, peak_anonymous_gigabytes=done.anonymous / 1e9)
    return done


def test_7b_converts_in_little_memory(place):
    checkpoints.require_disk(place, 46)
    original, store = place / "7b", place / "7b-store"
    try:
        written = checkpoints.write_release(original, "7b")
        done = convert(original, store, "7B, Hugging Face -> store")
        assert len(list(original.glob("model-*.safetensors"))) > 10
        check_store(written, store)
    finally:
        shutil.rmtree(original, ignore_errors=True)
        shutil.rmtree(store, ignore_errors=True)
    assert done.summary["bytes"] // 2 == 10_732_225_408 and done.summary["speakers"] == ["Chelsie", "Ethan"]
    assert done.anonymous < 6e9


def check_store(written: list, store: Path) -> None:
    """The store holds the tensors that were written: all by name, type and shape, some of each network by bytes."""
    assert is_store(store)
    stored = read_store(store, checkpoints.config_of("7b"))
    assert len(stored) == len(written)
    for tensor in written:
        found = stored[tensor.name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), tensor.name
    for tensor in written[::250]:
        assert checkpoints.same_bytes(tensor, stored[tensor.name]), tensor.name


def test_3b_comes_back_bit_for_bit(place, release_3b):
    original, store = release_3b
    back = place / "3b-back"
    try:
        done = convert(store, back, "3B, store -> Hugging Face")
        before, after = read_directory(original), read_directory(back)
        assert list(before) == list(after)
        assert not [name for name in before if not checkpoints.same_bytes(before[name], after[name])]
    finally:
        shutil.rmtree(back, ignore_errors=True)
    assert done.summary["bytes"] // 2 == 5_537_120_640 and done.anonymous < 6e9


@pytest.mark.parametrize("layout", ["Hugging Face", "store"])
def test_3b_answers(release_3b, layout):
    """A picture and a sound through the 3B's true shape, in bfloat16 on the CPU."""
    measure.require_memory(14)
    done = measure.run("tests.full_size.ask", release_3b[layout == "store"], "bfloat16")
    summary = done.summary
    report(f"3B answers, loaded from {layout}", peak_resident_gigabytes=summary["peak_bytes"] / 1e9,
           peak_anonymous_gigabytes=done.anonymous / 1e9, **summary)
    assert summary["media"]["image"] > 30 and summary["media"]["audio"] == 50
    assert len(summary["token_ids"]) == 4 and summary["same_again"] and summary["finite"]
    assert summary["peak_bytes"] < 16e9
