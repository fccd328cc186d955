"""Train steps at full size: their shapes, what they must compute, and what they hold."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs import speech_stages
from configs.stages import with_fields
from omni_jax.config import DecoderConfig, OmniConfig
from omni_jax.sharding import resolve
from omni_jax.training import setup
from omni_jax.training.batch import ClipBatch, SpokenBatch, TrainBatch
from omni_jax.training.clips import Clips
from omni_jax.training.config import DataConfig, LoraConfig, MediaBudget, Source, TrainConfig
from omni_jax.training.packing import to_batch
from omni_jax.training.step import Params, make_train_step, state_of
from omni_jax.training.utterances import talker_rows
from tools._phases import Model, Step, local_bytes


@dataclasses.dataclass(frozen=True)
class Phase:
    """what: in words. run: its configuration, but for the batch size and remat. row: a batch of one empty row. flops:
    what a step must compute for a row, nothing twice, by the abstract parameters that learn and those that are frozen.

    Source of the counts: PaLM (arXiv 2204.02311), appendix B: twice each weight for every vector and pass, which are
    forward, gradient of the input and, if it learns, of the weight. (There attention counts as the whole square.)
    """

    what: str
    run: TrainConfig
    row: Callable[[OmniConfig, TrainConfig], Any]
    flops: Callable[[OmniConfig, TrainConfig, Params, Params], float]


def _texts(config: OmniConfig, run: TrainConfig) -> TrainBatch:
    return to_batch([()], run.data.length, config, run.data.media)


def _spoken(config: OmniConfig, run: TrainConfig) -> SpokenBatch:
    return SpokenBatch(_texts(config, run), talker_rows([()], run.data.speech_length, config))


def _clips(config: OmniConfig, run: TrainConfig) -> ClipBatch:
    return Clips(run, config.token2wav_config, {}).to_batch([()], run.data.length)


def _weights(params: Params, *names: str) -> int:
    return sum(math.prod(leaf.shape) for path, leaf in params.items() if path.startswith(names))


def _attention(config: DecoderConfig, length: int) -> int:
    """Of one pass forward: causal, half of the square. A backward pass takes twice as much."""
    return 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length**2


def _text_flops(config: OmniConfig, run: TrainConfig, learnt: Params, frozen: Params) -> float:
    """The decoder and the head, and attention."""
    thinker, length = config.thinker_config, run.data.length
    read = "thinker/decoder/", "thinker/embed/" if thinker.tie_word_embeddings else "thinker/lm_head/"
    products = length * (6 * _weights(learnt, *read) + 4 * _weights(frozen, *read))
    return products + 3 * _attention(thinker.text_config, length)


def _spoken_flops(config: OmniConfig, run: TrainConfig, learnt: Params, frozen: Params) -> float:
    """The frozen Thinker forward, without its head, and the Talker."""
    length, steps = run.data.length, run.data.speech_length
    heard = 2 * length * _weights(frozen, "thinker/decoder/") + _attention(config.thinker_config.text_config, length)
    said = 6 * steps * _weights(learnt, "talker/proj/", "talker/decoder/", "talker/codec_head/")
    return heard + said + 3 * _attention(config.talker_config, steps)


def _clip_flops(config: OmniConfig, run: TrainConfig, learnt: Params, frozen: Params) -> float:
    """The DiT at one time: its layers in every frame, each seeing its own block or two, and its modulations once; the
    code's part of the input once a code. Left out: both ECAPAs and the mels."""
    dit = config.token2wav_config.dit_config
    frames, layers = run.speech.clip * dit.block_size, "token2wav/dit/layers/"
    once = _weights(learnt, f"{layers}modulation/", "token2wav/dit/modulation/", "token2wav/dit/time/")
    each = _weights(learnt, layers, "token2wav/dit/output/") - _weights(learnt, f"{layers}modulation/")
    each += dit.hidden_size * (dit.mel_dim + dit.emb_dim // dit.repeats)
    seen = dit.block_size * (dit.num_hidden_layers + len(dit.look_ahead_layers + dit.look_backward_layers))
    return 6 * (once + frames * each) + 12 * frames * seen * dit.num_attention_heads * dit.head_dim


def _text_run(length: int, lora: LoraConfig | None = None) -> TrainConfig:
    return TrainConfig("", DataConfig((Source("none"),), length=length), lora=lora)


_VOICE = speech_stages.released("7b", **{"accumulate": 1, "data.media": MediaBudget()})
PHASES = {
    "train-8k": Phase("a training step of all parameters, packed rows of 8,192 tokens", _text_run(8192), _texts,
                      _text_flops),
    "train-32k": Phase("the same with 32,768 tokens", _text_run(32768), _texts, _text_flops),
    "train-lora": Phase("a training step of low-rank adapters on the frozen decoder, rows of 8,192 tokens",
                        _text_run(8192, LoraConfig()), _texts, _text_flops),
    "train-talker": Phase("a training step of the Talker on the frozen Thinker, rows of 4,096 tokens and 8,192 steps",
                          speech_stages.talker(_VOICE), _spoken, _spoken_flops),
    "train-dit": Phase("a training step of the DiT and the speaker encoder, rows of 12 blocks (2.88 s)",
                       speech_stages.flow(_VOICE), _clips, _clip_flops),
}
SPOKEN = "train-talker", "train-dit"  # for models that speak
COLUMNS = (("target", "10s"), ("mesh", "5s"), ("phase", "12s"), ("remat", "5s"), ("rows", "4s"), ("fits", "4s"),
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
    model's params are all that the run keeps, but for what Adam and averages add. Raises OmniError."""
    kind, batch_size = PHASES[phase], rows * mesh.shape["data"] * mesh.shape["fsdp"]
    run = with_fields(kind.run, {"batch_size": batch_size, "remat": remat})
    plan, params, frozen = setup.plan_of(run, config, mesh)
    state, shardings = state_of(plan, params)
    args = (state, frozen, _rows(kind.row(config, run), batch_size, mesh))
    return Model(config, mesh, {"trained": (None, {**params, **frozen})}), TrainStep(
        make_train_step(plan, shardings), args, (params, frozen), (state.optimizer, state.averages),
        model_flops=batch_size * kind.flops(config, run, params, frozen), gradients=local_bytes(params),
        facts={"remat": remat, "rows": rows})


def _rows(batch: Any, count: int, mesh: Mesh) -> Any:
    """So many rows like a batch's only one, as a step takes them (see training.feed.put)."""
    where = NamedSharding(mesh, PartitionSpec(None, *resolve(("batch",), (count,), mesh)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, count, *x.shape[1:]), x.dtype, sharding=where), batch)


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
