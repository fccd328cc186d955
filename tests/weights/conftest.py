import pytest

from tests.weights import checkpoints


@pytest.fixture(scope="session")
def config():
    return checkpoints.omni_config(speech=True)


@pytest.fixture(scope="session")
def original(tmp_path_factory, config):
    """A sharded float32 checkpoint with tensors of the speaking half; not to be changed."""
    return checkpoints.write_checkpoint(tmp_path_factory.mktemp("weights") / "original", config)


@pytest.fixture
def broken(tmp_path, original):
    """A copy to break."""
    return checkpoints.copy(original, tmp_path / "broken")


@pytest.fixture(scope="session")
def store(tmp_path_factory, config, original):
    """The original, converted; not to be changed."""
    from tools.convert import main

    path = tmp_path_factory.mktemp("weights") / "store"
    main([str(original), str(path)])
    return path
