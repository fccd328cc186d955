"""Every configuration of a stage fits the checkpoint that it is for."""

from pathlib import Path

import pytest

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.training.setup import plan_of
from tools.train import read

CONFIGS = sorted(path for size in ("3b", "7b", "smoke", "tiny") for path in Path("configs").glob(f"*_{size}.py"))
STARTS = {"3b": "qwen2.5-omni-3b", "7b": "qwen2.5-omni-7b", "smoke": "smoke", "tiny": "omni-tiny"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_stage_can_be_planned(path):
    """What learns is there, and its objective finds nothing wrong; nothing is computed."""
    size = path.stem.rpartition("_")[2]
    config = OmniConfig.load(f"configs/{STARTS[size]}.json")
    _, learnt, frozen = plan_of(read(path), config, sharding.make_mesh("fsdp=2,model=2"))
    assert learnt and not learnt.keys() & frozen.keys()
    assert "--workdir" in path.read_text() and f"configs/{path.name}" in path.read_text()
