"""Both small checkpoints against the PyTorch reference, case by case: see tools/parity.py for what is compared."""

import pytest

pytest.importorskip("torch")

import omni_jax
from tools import parity

CASES = {case.name: case for case in parity.cases()}


@pytest.fixture(scope="module")
def pair(checkpoint):
    return omni_jax.load(checkpoint, mesh="", dtype="float32"), parity.reference_model(checkpoint)


@pytest.mark.parametrize("name", CASES)
def test_every_part_is_within_its_bar(pair, name):
    rows = list(parity.compare(*pair, CASES[name]))
    assert {"decoder", "prompt logits", "their logits"} <= {row.part for row in rows}
    over = [row for row in rows if not row.passes]
    assert not over, over


def test_a_wrong_weight_is_seen(pair):
    """The comparison can fail: one changed number in one layer is over the bar."""
    import torch

    omni, reference = pair
    weight = reference.model.language_model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[3, 4] += 1.0
    rows = {row.part: row for row in parity.compare(omni, reference, CASES["text"])}
    with torch.no_grad():
        weight[3, 4] -= 1.0
    assert not rows["decoder"].passes and not rows["prompt logits"].passes
