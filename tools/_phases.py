"""The jitted steps of a reply at full size, with arguments that have shapes and shardings but no memory."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import OmniConfig, ThinkerConfig
from omni_jax.data.batch import AUDIO_BLOCKS, VISION_PATCHES
from omni_jax.data.buckets import PREFILL_CHUNK
from omni_jax.errors import OmniError
from omni_jax.inference import steps
from omni_jax.inference.networks import abstract_networks
from omni_jax.inference.sampling import Sampling

DTYPE = jnp.bfloat16
PHASES = {
    "prefill-8k": f"{PREFILL_CHUNK} tokens of a prompt, cache of 8,192 slots",
    "prefill-32k": f"{PREFILL_CHUNK} tokens of a prompt, cache of 32,768 slots",
    "decode-32k": "one greedy token, cache of 32,768 slots",
    "sample-32k": "one token drawn with temperature, top-p and repetition penalty, cache of 32,768 slots",
    "audio": f"the audio tower on {AUDIO_BLOCKS} blocks of 2 s",
    "video": f"the vision tower on {VISION_PATCHES // 1024} frame pairs of 1,024 patches",
    "picture": f"the vision tower on one picture of {VISION_PATCHES:,} patches",
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A network's shapes on a mesh."""

    config: ThinkerConfig
    mesh: Mesh
    graphdef: Any
    params: dict

    @classmethod
    def build(cls, config: ThinkerConfig, mesh: Mesh) -> "Model":
        return cls(config, mesh, *abstract_networks(OmniConfig(config), mesh, DTYPE)["thinker"])

    def array(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """An argument that every device holds whole."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Step:
    """A jitted function with its arguments. `weights`, `cache`: what it must read at least once, of `params` and of
    the decoder's memory; `branches`: see `_hlo.account`."""

    function: Callable
    args: tuple
    weights: Any
    cache: Any = ()
    branches: tuple[float, ...] | None = None
    per_prompt: int = 1  # such steps in a prompt that fills the cache


def step(model: Model, phase: str, chunk: int = PREFILL_CHUNK, batch: int = 1) -> Step:
    """The step of one of PHASES; `chunk`: tokens of a prefill step. Raises OmniError."""
    kind, _, size = phase.partition("-")
    if phase not in PHASES:
        raise OmniError(f"phase {phase!r}: is not one of {', '.join(PHASES)}")
    slots = int(size.removesuffix("k") or 0) * 1024
    if kind == "prefill":
        return _prefill(model, slots, chunk, batch)
    if kind in ("decode", "sample"):
        return _decode(model, slots, batch, Sampling(0.7, 0.8, 0, 1.05) if kind == "sample" else Sampling())
    return _audio(model) if kind == "audio" else _vision(model, 1 if kind == "picture" else VISION_PATCHES // 1024)


def local_bytes(tree: Any) -> int:
    """Bytes of arrays on one device, layout padding left out."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _with_shardings(jitted: Callable, *args: Any, **kwargs: Any) -> Any:
    """What a jitted function returns, as shapes with the shardings that the compiler chose."""
    lowered = jitted.lower(*args, **kwargs)
    return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
                        lowered.out_info, lowered.compile().output_shardings)


def _cache(model: Model, slots: int, batch: int) -> Any:
    return _with_shardings(steps.empty_cache, model.graphdef, model.params, batch, slots)


def _head(model: Model) -> dict:
    name = "embed" if model.config.tie_word_embeddings else "lm_head"
    return model.params[name]


def _arguments(function: Callable, **known: Any) -> tuple:
    """The arguments of a step in its own order, by their names."""
    return tuple(known[name] for name in inspect.signature(function).parameters)


def _prefill(model: Model, slots: int, chunk: int, batch: int) -> Step:
    width = model.config.text_config.hidden_size
    cache = _cache(model, slots, batch)
    args = _arguments(
        steps.prefill, graphdef=model.graphdef, params=model.params, cache=cache,
        chunk=model.array((batch, chunk, width), DTYPE), positions=model.array((3, batch, chunk), jnp.int32),
        valid=model.array((batch, chunk), bool), ends=model.array((batch,), jnp.int32),
        last=model.array((batch, width), DTYPE))
    return Step(steps.prefill, args, model.params["decoder"], (cache.keys, cache.values), per_prompt=slots // chunk)


def _decode(model: Model, slots: int, batch: int, sampling: Sampling) -> Step:
    text, rows = model.config.text_config, lambda dtype: model.array((batch,), dtype)
    known = {"graphdef": model.graphdef, "config": model.config, "sampler": sampling.sampler, "params": model.params,
             "numbers": model.array((3,), jnp.float32), "ends": model.array((2,), jnp.int32)}
    first = _arguments(steps.first_token, **known, last=model.array((batch, text.hidden_size), DTYPE),
                       position=rows(jnp.int32), seen=model.array((batch, text.vocab_size), bool),
                       seeds=rows(jnp.uint32), limits=rows(jnp.int32), slots=slots)
    cache, state = _cache(model, slots, batch), _with_shardings(steps.first_token, *first)
    args = _arguments(steps.decode, **known, cache=cache, state=state, limit=model.array((), jnp.int32))
    return Step(steps.decode, args, (model.params["decoder"], _head(model)), (cache.keys, cache.values))


def _audio(model: Model) -> Step:
    audio = model.config.audio_config
    args = (model.graphdef, model.params,
            model.array((AUDIO_BLOCKS, 2 * audio.n_window, audio.num_mel_bins), jnp.float32),
            model.array((AUDIO_BLOCKS,), jnp.int32))
    return Step(steps.encode_audio, args, model.params["audio"])


def _vision(model: Model, frames: int) -> Step:
    vision = model.config.vision_config
    cells, patches = vision.window_cells**2, vision.spatial_merge_size**2
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    bins = VISION_PATCHES // (frames * cells * patches)
    args = (model.graphdef, model.params, model.array((frames, bins, cells, patches, values), jnp.uint8),
            model.array((frames, bins, cells, 3), jnp.int32))
    full = len(vision.fullatt_block_indexes) / vision.depth
    return Step(steps.encode_vision, args, model.params["vision"], branches=(1 - full, full))
