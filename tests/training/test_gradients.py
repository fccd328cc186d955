"""The first step's loss and every gradient against the PyTorch reference: text, picture, sound, video with sound."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import omni_jax
from omni_jax.training import setup as setups
from omni_jax.training.config import DataConfig, Source, TrainConfig
from omni_jax.weights import params_tensors
from omni_jax.weights.names import canonical, nest
from tests.training import rows
from tools import parity


def reference_loss(model, omni, prompts, weights):
    """Weighted cross-entropy of the reference, whose rows are padded on the left."""
    inputs = parity.reference_inputs(omni.config.thinker_config, prompts, use_audio_in_video=True)
    logits = model(**inputs).logits
    total = 0.0
    for b, prompt in enumerate(prompts):
        T = len(prompt.token_ids)
        targets = torch.tensor(prompt.token_ids[1:].astype(np.int64))
        losses = torch.nn.functional.cross_entropy(logits[b, -T:-1], targets, reduction="none")
        total = total + (losses * torch.tensor(weights[b, 1:T])).sum()
    return total / sum(weights[b, 1:len(p.token_ids)].sum() for b, p in enumerate(prompts))


def test_the_loss_and_every_gradient(checkpoint):
    omni = omni_jax.load(checkpoint, mesh="", dtype="float32", speech=False)
    reference = parity.reference_model(checkpoint).thinker
    prompts = rows.prompts(omni)
    batch = rows.batch(omni, prompts)
    run = TrainConfig(str(checkpoint), DataConfig((Source("unread"),)), mesh="", dtype="float32", remat="none")
    setup = setups.prepare(run)
    params, _ = setups.load_params_of(setup)

    @jax.jit
    def ours(params):
        sums = setup.plan.sums(params, {}, jax.tree.map(lambda x: x[0], batch))
        return sums["loss"] / sums["weight"]

    with jax.set_mesh(setup.mesh):
        loss, grads = jax.value_and_grad(ours)(params)
    with torch.enable_grad():
        reference.requires_grad_(True)
        theirs = reference_loss(reference, omni, prompts, batch.weights[0])
        theirs.backward()
    assert abs(float(loss) - float(theirs)) <= 1e-5 * abs(float(theirs))
    gradients = {canonical("thinker." + name): p.grad for name, p in reference.named_parameters()}
    unread = "thinker.audio_tower.audio_bos_eos_token.weight"
    for tensor in params_tensors(nest(grads), omni.config):
        if tensor.name == unread:
            assert not np.any(tensor.load())
            continue
        assert parity.relative(tensor.load(), gradients[tensor.name]) < 1e-4, tensor.name
    assert len(gradients) >= len(grads)
