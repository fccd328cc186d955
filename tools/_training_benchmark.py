"""The training part of tools/benchmark.py: the Thinker's loss and every gradient of its language model."""

from typing import Any

import jax
import numpy as np

from omni_jax import Omni
from omni_jax.training import setup as setups
from omni_jax.training.batch import TrainBatch
from omni_jax.training.config import DataConfig, Source, TrainConfig
from tools import _measure
from tools._measure import Job, Side
from tools.parity import relative

ROWS, LENGTH = 2, 512
LANGUAGE = ("thinker/embed/*", "thinker/decoder/*", "thinker/lm_head/*")


def train(directory: str, omni: Omni, reference: Any) -> Job:
    """Forward and backward over whole rows of text. What is compared is the loss and the norm of all gradients."""
    run = TrainConfig(directory, DataConfig((Source("none"),)), train=LANGUAGE, batch_size=ROWS, dtype="float32",
                      mesh="", remat="none")
    setup = setups.prepare(run)
    with jax.set_mesh(setup.mesh):
        params, frozen = setups.load_params_of(setup)
    tokens = np.random.default_rng(0).integers(0, 256, (ROWS, LENGTH), dtype=np.int32)
    no_pictures = np.zeros((ROWS, 1, 3), np.int32), np.zeros((ROWS, 1), np.float32)
    batch = TrainBatch(tokens, np.ones_like(tokens), np.ones(tokens.shape, np.float32), *no_pictures, (), ())
    loss = jax.value_and_grad(lambda params, frozen: setup.plan.sums(params, frozen, batch)["loss"])
    gradient = jax.jit(loss)

    def ours():
        with jax.set_mesh(setup.mesh):
            return jax.block_until_ready(gradient(params, frozen))

    text = omni.config.thinker_config.text_config
    forward = ROWS * (_measure.prefill_flops(text, LENGTH) + 2 * (LENGTH - 1) * text.vocab_size * text.hidden_size)
    return Job("train", f"{ROWS} rows of {LENGTH} tokens, forward and backward", Side(ours),
               Side(_theirs(reference, tokens)), _difference, ROWS * LENGTH, "tokens/s", 3 * forward, "matmul")


def _theirs(reference: Any, tokens: np.ndarray) -> Any:
    import torch

    ids = torch.tensor(tokens).long()
    learnt = [*reference.model.language_model.parameters(), *reference.lm_head.parameters()]

    def step():
        with torch.inference_mode(False), torch.enable_grad():
            for parameter in learnt:
                parameter.requires_grad_(True)
                parameter.grad = None
            hidden = reference.model.language_model(input_ids=ids.clone(), use_cache=False).last_hidden_state
            logits = reference.lm_head(hidden[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].clone().flatten(),
                                                     reduction="sum")
            loss.backward()
        return float(loss.detach()), learnt

    return step


def _difference(ours: Any, theirs: Any) -> float:
    loss, gradients = ours
    norm = float(np.sqrt(sum(float((leaf**2).sum()) for leaf in gradients.values())))
    their_norm = float(sum(float((parameter.grad**2).sum()) for parameter in theirs[1]) ** 0.5)
    return max(relative(float(loss), theirs[0]), relative(norm, their_norm))
