"""The jitted steps of a reply at full size, with arguments that have shapes and shardings but no memory.

Those of speech are in _speech_phases.py.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.config import OmniConfig
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
    """The networks' shapes on a mesh: {name: (graphdef, params)}."""

    config: OmniConfig
    mesh: Mesh
    networks: dict[str, tuple[Any, dict]]

    @classmethod
    def build(cls, config: OmniConfig, mesh: Mesh) -> "Model":
        return cls(config, mesh, abstract_networks(config, mesh, DTYPE))

    @property
    def thinker(self) -> tuple[Any, dict]:
        return self.networks["thinker"]

    @property
    def params(self) -> dict:
        """All that a loaded model keeps."""
        return {name: params for name, (_, params) in self.networks.items()}

    def array(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """An argument that every device holds whole."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Step:
    """A jitted function with its arguments. `weights`, `cache`: what it must read at least once (weights: `passes`
    times), of the params and of the decoders' memory; `branches`, `turns`: see `_hlo.account`."""

    function: Callable
    args: tuple
    weights: Any
    cache: Any = ()
    branches: tuple[float, ...] | None = None
    turns: tuple[int, ...] = ()
    passes: int = 1
    per_prompt: int = 1  # such steps in a prompt that fills the cache


def step(model: Model, phase: str, chunk: int = PREFILL_CHUNK, batch: int = 1) -> Step:
    """The step of one of PHASES; `chunk`: tokens of a prefill step. Raises OmniError."""
    kind, _, size = phase.partition("-")
    if phase not in PHASES:
        raise OmniError(f"phase {phase!r}: is not one of {', '.join(PHASES)}")
    slots = int(size.removesuffix("k") or 0) * 1024
    if kind == "prefill":
        return prefill(model, slots, chunk, batch)
    if kind in ("decode", "sample"):
        return _decode(model, slots, batch, Sampling(0.7, 0.8, 0, 1.05) if kind == "sample" else Sampling())
    return _audio(model) if kind == "audio" else _vision(model, 1 if kind == "picture" else VISION_PATCHES // 1024)


def local_bytes(tree: Any) -> int:
    """Bytes of arrays on one device, layout padding left out."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def results(jitted: Callable, *args: Any, **kwargs: Any) -> Any:
    """What a jitted function returns, as shapes with the shardings that the compiler chose."""
    lowered = jitted.lower(*args, **kwargs)
    mesh = jax.sharding.get_mesh()
    if mesh.size == 1:  # nothing to choose
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), lowered.out_info)
    return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
                        lowered.out_info, lowered.compile().output_shardings)


def cache(model: Model, network: str, slots: int, batch: int) -> Any:
    """The empty cache of "thinker" or "talker"."""
    return results(steps.empty_cache, *model.networks[network], batch, slots)


def arguments(function: Callable, **known: Any) -> tuple:
    """The arguments of a step in its own order, by their names; its own defaults for those that are not `known`."""
    return tuple(known.get(name, parameter.default) if parameter.default is not parameter.empty else known[name]
                 for name, parameter in inspect.signature(function).parameters.items())


def head(model: Model) -> dict:
    name = "embed" if model.config.thinker_config.tie_word_embeddings else "lm_head"
    return model.thinker[1][name]


def prefill(model: Model, slots: int, chunk: int, batch: int) -> Step:
    """A chunk of the prompt through the Thinker."""
    (graphdef, params), width = model.thinker, model.config.thinker_config.text_config.hidden_size
    store = cache(model, "thinker", slots, batch)
    args = arguments(
        steps.prefill, graphdef=graphdef, params=params, cache=store,
        chunk=model.array((batch, chunk, width), DTYPE), positions=model.array((3, batch, chunk), jnp.int32),
        valid=model.array((batch, chunk), bool), ends=model.array((batch,), jnp.int32),
        last=model.array((batch, width), DTYPE))
    return Step(steps.prefill, args, params["decoder"], (store.keys, store.values), per_prompt=slots // chunk)


def first_token(model: Model, slots: int, batch: int, sampling: Sampling) -> Step:
    """The first token of the reply, from the prompt's last hidden vector."""
    text, rows = model.config.thinker_config.text_config, lambda dtype: model.array((batch,), dtype)
    args = arguments(
        steps.first_token, **_known(model, sampling), last=model.array((batch, text.hidden_size), DTYPE),
        position=rows(jnp.int32), seen=model.array((batch, text.vocab_size), bool), seeds=rows(jnp.uint32),
        limits=rows(jnp.int32), slots=slots)
    return Step(steps.first_token, args, head(model))


def _known(model: Model, sampling: Sampling) -> dict[str, Any]:
    graphdef, params = model.thinker
    return {"graphdef": graphdef, "config": model.config.thinker_config, "sampler": sampling.sampler, "params": params,
            "numbers": model.array((3,), jnp.float32), "ends": model.array((2,), jnp.int32)}


def decode_state(model: Model, slots: int, batch: int, sampling: Sampling) -> Any:
    first = first_token(model, slots, batch, sampling)
    return results(first.function, *first.args)


def _decode(model: Model, slots: int, batch: int, sampling: Sampling) -> Step:
    store = cache(model, "thinker", slots, batch)
    args = arguments(steps.decode, **_known(model, sampling), cache=store,
                     state=decode_state(model, slots, batch, sampling), limit=model.array((), jnp.int32))
    return Step(steps.decode, args, (model.thinker[1]["decoder"], head(model)), (store.keys, store.values))


def _audio(model: Model) -> Step:
    (graphdef, params), audio = model.thinker, model.config.thinker_config.audio_config
    args = (graphdef, params, model.array((AUDIO_BLOCKS, 2 * audio.n_window, audio.num_mel_bins), jnp.float32),
            model.array((AUDIO_BLOCKS,), jnp.int32))
    return Step(steps.encode_audio, args, params["audio"])


def _vision(model: Model, frames: int) -> Step:
    (graphdef, params), vision = model.thinker, model.config.thinker_config.vision_config
    cells, patches = vision.window_cells**2, vision.spatial_merge_size**2
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    bins = VISION_PATCHES // (frames * cells * patches)
    args = (graphdef, params, model.array((frames, bins, cells, patches, values), jnp.uint8),
            model.array((frames, bins, cells, 3), jnp.int32))
    full = len(vision.fullatt_block_indexes) / vision.depth
    return Step(steps.encode_vision, args, params["vision"], branches=(1 - full, full))
