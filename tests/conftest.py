"""Eight virtual CPU devices, programs kept between runs, and small random checkpoints made once."""

import os

# Before jax starts: tests of meshes want eight devices; all others say mesh="" and use one. On fewer cores than devices
# XLA must neither run a program's collectives side by side nor have few threads: devices that wait for each other would
# keep those from running that they wait for.
os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
                           "--xla_cpu_enable_concurrency_optimized_scheduler=false")
os.environ.setdefault("NPROC", "16")
# PyTorch's threads, in each worker as many as there are cores, wait for one another by spinning: two workers on two
# cores take two to four times as long for it so.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gc
from pathlib import Path

import jax
import pytest

import omni_jax
from tests import tiny

MOST_MAPPINGS = 16_000


def pytest_configure(config):
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="module", autouse=True)
def few_mappings():
    """Compiled programs are mapped into memory, tens of mappings each, and Linux allows a process 65,530 in all: a
    whole suite's would exceed them, and then the next one crashes. So they are dropped now and then."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def talking_7b(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "talking"
    return tiny.write_checkpoint(path, "7b", speech=True, dtype="float32", seed=1)


@pytest.fixture(scope="session")
def talking_3b(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "talking"
    return tiny.write_checkpoint(path, "3b", speech=True, dtype="float32", seed=1)


@pytest.fixture(scope="session", params=["7b", "3b"])
def checkpoint(request):
    """Random checkpoints shaped like both releases, speech included."""
    return request.getfixturevalue(f"talking_{request.param}")


@pytest.fixture(scope="session")
def talking(talking_7b):
    """The checkpoint shaped like the 7B, with its speaking half, on one device."""
    return omni_jax.load(talking_7b, mesh="")


@pytest.fixture(scope="session")
def checkpoint_7b(tmp_path_factory):
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "7b", "7b", dtype="float32")


@pytest.fixture(scope="session")
def omni(checkpoint_7b):
    """The checkpoint shaped like the 7B on one device."""
    return omni_jax.load(checkpoint_7b, mesh="")
