"""The command that lists, copies, adds, removes and writes voices."""

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.weights import find_speakers, read_speakers, write_speakers
from omni_jax.weights.random_init import random_speakers
from tests.weights.checkpoints import omni_config
from tools import speakers


@pytest.fixture
def voices():
    return random_speakers(omni_config())


@pytest.fixture(params=["spk_dict.pt", "speakers.safetensors"])
def directory(tmp_path, voices, request):
    (tmp_path / "checkpoint").mkdir()
    write_speakers(tmp_path / "checkpoint" / request.param, voices)
    return tmp_path / "checkpoint"


def names(directory) -> list[str]:
    return list(find_speakers(directory))


def same(one, other) -> bool:
    return (one.bos_token == other.bos_token and np.array_equal(one.cond, other.cond)
            and np.array_equal(one.ref_mel, other.ref_mel))


def test_lists(directory):
    told = speakers.main([str(directory)])["speakers"]
    assert len(told) == 2 and told[0].startswith("Chelsie (first token ") and "3.0 s of reference" in told[0]


def test_copies_and_removes(directory, voices):
    files = sorted(path.name for path in directory.iterdir())
    speakers.main([str(directory), "--copy", "Ethan", "Ada", "--remove", "Ethan"])
    assert names(directory) == ["Chelsie", "Ada"] and same(find_speakers(directory)["Ada"], voices["Ethan"])
    assert sorted(path.name for path in directory.iterdir()) == files


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_writes_out_and_adds_in(directory, voices, tmp_path, suffix):
    out = tmp_path / f"voices{suffix}"
    speakers.main([str(directory), "--write", str(out)])
    assert same(read_speakers(out)["Ethan"], voices["Ethan"])
    (tmp_path / "lost").mkdir()
    speakers.main([str(tmp_path / "lost"), "--add", str(out), "--only", "Ethan"])
    assert names(tmp_path / "lost") == ["Ethan"] and same(find_speakers(tmp_path / "lost")["Ethan"], voices["Ethan"])


@pytest.mark.parametrize("words, message", [
    (["--copy", "Ada", "Eve"], "'Ada' is unknown; there is Chelsie, Ethan"),
    (["--copy", "Ethan", "Chelsie"], "'Chelsie' is there already"), (["--copy", "Ethan", " "], "name is empty"),
    (["--remove", "Ada"], "'Ada' is unknown"), (["--only", "Ada"], "give both"),
    (["--add", "nowhere.pt"], "nowhere.pt"), (["--write", "x.txt"], "must end with"),
    (["--write", "nowhere/x.pt"], "exists already, or its directory does not"),
], ids=str)
def test_mistakes_change_nothing(directory, words, message):
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(OmniError, match=message):
        speakers.main([str(directory), *words])
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_needs_a_directory(tmp_path):
    with pytest.raises(OmniError, match="is not a directory"):
        speakers.main([str(tmp_path / "nowhere")])
