"""Both small checkpoints against the PyTorch reference, case by case: see tools/parity.py for what is compared."""

import pytest

pytest.importorskip("torch")

import omni_jax
from tools import parity

CASES = {case.name: case for case in parity.cases()}
QUICK_3B = ("video with sound", "a batch of unequal rows")  # every medium is in these; the others are slow


@pytest.fixture(scope="module")
def pair(checkpoint):
    return omni_jax.load(checkpoint, mesh="", dtype="float32"), parity.reference_model(checkpoint)


@pytest.mark.parametrize("checkpoint, name", [
    pytest.param(size, name, marks=pytest.mark.slow if size == "3b" and name not in QUICK_3B else [])
    for size in ("7b", "3b") for name in CASES], indirect=["checkpoint"])
def test_every_part_is_within_its_bar(pair, name):
    rows = list(parity.compare(*pair, CASES[name]))
    assert {"decoder", "prompt logits", "their logits", "Talker", "200 greedy codes that differ",
            "their logits, the worst step", "waveform, in their own roundings"} <= {row.part for row in rows}
    over = [row for row in rows if not row.passes]
    assert not over, over


@pytest.mark.parametrize("checkpoint", ["7b", pytest.param("3b", marks=pytest.mark.slow)], indirect=True)
def test_a_wrong_weight_is_seen(pair):
    """The comparison can fail: one changed number in one layer of each network is over its bars."""
    import torch

    omni, reference = pair
    changed = (reference.thinker.model.language_model.layers[1].mlp.up_proj.weight,
               reference.talker.model.layers[1].self_attn.q_proj.weight,
               reference.token2wav.code2wav_dit_model.transformer_blocks[2].attn.to_q.weight)
    with torch.no_grad():
        for weight in changed:
            weight[3, 4] += 1.0
    rows = {row.part: row for row in parity.compare(omni, reference, CASES["text"])}
    with torch.no_grad():
        for weight in changed:
            weight[3, 4] -= 1.0
    for part in ("decoder", "prompt logits", "Talker", "their logits, the worst step",
                 "waveform, in their own roundings"):
        assert not rows[part].passes, rows[part]
