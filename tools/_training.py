"""Train steps at full size: their shapes, what they must compute, and what they hold."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import OmniConfig
from omni_jax.sharding import resolve
from omni_jax.training import setup
from omni_jax.training.batch import TrainBatch
from omni_jax.training.config import DataConfig, LoraConfig, Source, TrainConfig
from omni_jax.training.step import TrainState, make_train_step, state_of
from tools._phases import Model, Step, local_bytes

PHASES = {
    "train-8k": "a training step of all parameters, packed rows of 8,192 tokens",
    "train-32k": "the same with 32,768 tokens",
    "train-lora": "a training step of low-rank adapters on the frozen decoder, rows of 8,192 tokens",
}
LENGTHS = {"train-8k": 8192, "train-32k": 32768, "train-lora": 8192}
COLUMNS = (("target", "10s"), ("mesh", "5s"), ("phase", "10s"), ("remat", "5s"), ("rows", "4s"), ("fits", "4s"),
           ("params", "6s"), ("optim", "5s"), ("grads", "5s"), ("temp", "5s"), ("total", "5s"), ("of GB", "6s"),
           ("TFLOP", "7s"), ("model", "7s"), ("GB", "7s"), ("coll", "6s"), ("GB sent", "7s"), ("ms", "7s"),
           ("work", "7s"), ("links", "6s"), ("starts", "6s"), ("MFU", "5s"))


@dataclasses.dataclass(frozen=True)
class TrainStep(Step):
    """model_flops: what a step must compute, over all devices, nothing twice; gradients: bytes a device, in float32."""

    model_flops: float = 0.0
    gradients: int = 0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def train_step(config: OmniConfig, mesh: Mesh, phase: str, rows: int, remat: str) -> tuple[Model, TrainStep]:
    """The step of one of PHASES with so many rows a device (of data and fsdp), text alone; in no mesh's context. The
    model's params are all that the run keeps, but for the optimizer's state. Raises OmniError."""
    length = LENGTHS[phase]
    lora = LoraConfig() if phase == "train-lora" else None
    batch_size = rows * mesh.shape["data"] * mesh.shape["fsdp"]
    run = TrainConfig("", DataConfig((Source("none"),), length=length), lora=lora, batch_size=batch_size, remat=remat)
    plan, params, frozen = setup.plan_of(run, config, mesh)
    state, shardings = state_of(plan, params)
    args = (state, frozen, _batch(mesh, batch_size, length))
    return Model(config, mesh, {"thinker": (None, {**params, **frozen})}), TrainStep(
        make_train_step(plan, shardings), args, (params, frozen), state.optimizer,
        model_flops=_model_flops(config, state, frozen, batch_size, length), gradients=local_bytes(params),
        facts={"remat": remat, "rows": rows})


def _batch(mesh: Mesh, rows: int, length: int) -> TrainBatch:
    where = NamedSharding(mesh, PartitionSpec(None, *resolve(("batch",), (rows,), mesh)))
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((1, rows, *shape), dtype, sharding=where)
    ids = array(jnp.int32, length)
    return TrainBatch(ids, ids, array(jnp.float32, length), array(jnp.int32, 1, 3), array(jnp.float32, 1), (), ())


def _model_flops(config: OmniConfig, state: TrainState, frozen: dict, rows: int, length: int) -> float:
    """Twice each weight of the decoder and the head for every token and pass: forward, gradient of the input and, if
    it learns, of the weight; and causal attention, half of the square, three times.

    Source: PaLM (arXiv 2204.02311), appendix B, which counts the whole square.
    """
    text, head = config.thinker_config.text_config, "embed" if config.thinker_config.tie_word_embeddings else "lm_head"
    read = lambda path: path.startswith(("thinker/decoder/", f"thinker/{head}/"))
    count = lambda tree: sum(math.prod(leaf.shape) for path, leaf in tree.items() if read(path))
    attention = 6 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * length
    return rows * length * (6.0 * count(state.params) + 4.0 * count(frozen) + attention)


def facts(step: TrainStep, row: dict[str, Any], devices: int, peak: float) -> dict[str, Any]:
    """What a row of training says besides."""
    own = step.model_flops / devices
    return step.facts | {"gradients": step.gradients, "model_flops": own,
                         "utilisation": own / (peak * row["seconds"]["total"])}


def cells(row: dict[str, Any]) -> list[str]:
    """A row's numbers, in the order of COLUMNS from the fits on."""
    seconds = row["seconds"]
    memory = [f"{row[k] / 1e9:.2f}" for k in ("weights", "cache", "gradients", "temporaries", "memory", "chip_memory")]
    work = [f"{row['flops'] / 1e12:.1f}", f"{row['model_flops'] / 1e12:.1f}", f"{row['bytes'] / 1e9:.1f}",
            f"{row['collectives']:.0f}", f"{row['collective_bytes'] / 1e9:.1f}"]
    times = [f"{1e3 * n:.0f}" for n in (seconds["total"], max(seconds["flops"], seconds["bytes"]), seconds["links"],
                                       seconds["starts"])]
    return [*memory, *work, *times, f"{100 * row['utilisation']:.1f}"]
