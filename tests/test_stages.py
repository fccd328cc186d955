"""Every configuration of a stage fits the checkpoint that it is for."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.training.setup import plan_of
from tools.tiny_data.__main__ import PARTS
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


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.py")), ids=lambda path: path.stem)
def test_no_name_is_given_twice(path):
    """The second would silently change what the first was for."""
    targets = [target for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)
               for target in node.targets]
    names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    assert len(names) == len(set(names))


def test_omni_tiny_is_made_of_what_was_made_before():
    """The plan from nothing: each part of the data is one of the tool's, and what is read of it has been written."""
    plan = subprocess.run(["make", "-nB", "tiny"], capture_output=True, text=True, check=True).stdout
    made, trained = set(), []
    for line in plan.splitlines():
        made |= set(re.findall(r"--part (\S+)", line))
        assert made <= set(PARTS)
        assert set(re.findall(r"out/tiny/data/(\w+)/", line)) <= made, line
        trained += re.findall(r"configs/(\w+)_tiny.py", line)
    assert trained[0] == "contrast" and trained[-4:] == ["converse", "look", "cells", "align"]
    assert len(trained) == len(set(trained))
