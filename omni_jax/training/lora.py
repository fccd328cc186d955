"""Low-rank adapters (LoRA): W x + alpha / rank * b (a x) with W frozen. Only a and b learn, and W + b a is never made
while training.

Adapters are ordinary leaves of the parameter tree, beside the weight that they adapt:

    thinker/decoder/layers/q/weight   [L, N, H, D]
    thinker/decoder/layers/q/lora/a   [L, rank, D]
    thinker/decoder/layers/q/lora/b   [L, N, H, rank]

The name tables know nothing of them: `without` takes them out; `tuned.tuned` adds them to their weights.
"""

import difflib
import fnmatch
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.errors import OmniError
from omni_jax.models.layers import Linear, Lora
from omni_jax.training.config import LoraConfig

NETWORKS = ("thinker", "talker")  # not Token2Wav: its DiT multiplies with parts of a Linear's weight itself

_LAYER = re.compile(r"/layers/\d+/")
Networks = Mapping[str, tuple[nnx.GraphDef, dict]]


def adapted(networks: Networks, config: LoraConfig, mesh: Mesh) -> dict[str, tuple[nnx.GraphDef, dict]]:
    """{name: (graphdef, abstract params)} with adapters on all matrices whose paths fit.

    Args:
      networks: what `abstract_networks` gave. Patterns (`fnmatch`) are held against the paths of weights, as in
        "thinker/decoder/layers/q/weight": without a layer's number, whether layers are stacked or apart.
    Raises: OmniError for a pattern that fits no matrix.
    """
    models = {name: (graphdef, params) for name, (graphdef, params) in networks.items() if name in NETWORKS}
    chosen = _chosen([path for name, network in models.items() for path in _weights(name, *network)], config.patterns)
    return {**networks, **{name: _with_adapters(name, *network, config, chosen, mesh)
                           for name, network in models.items()}}


def is_adapter(path: str) -> bool:
    return path.endswith(("/lora/a", "/lora/b"))


def without(params: Mapping[str, Any]) -> dict[str, Any]:
    """{path: leaf} without the adapters: what the name tables know."""
    return {path: leaf for path, leaf in params.items() if not is_adapter(path)}


def fresh(abstract: Mapping[str, jax.ShapeDtypeStruct], seed: int = 0) -> dict[str, jax.Array]:
    """The adapters among {path: abstract leaf} as they start: a normal, with the deviation 1 / sqrt(inputs), and b
    zero, so that nothing is changed yet. A leaf depends on the seed and its path alone, on every mesh."""
    wanted = {path: leaf for path, leaf in abstract.items() if is_adapter(path)}
    return jax.jit(lambda: {path: _first(path, leaf, seed) for path, leaf in wanted.items()},
                   out_shardings={path: leaf.sharding for path, leaf in wanted.items()})()


def add_adapter(weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """W + scale * b a of one matrix [*outputs, *inputs], computed in float32, in W's dtype."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    change = jnp.tensordot(b, a, 1, precision=jax.lax.Precision.HIGHEST)
    return (weight.astype(jnp.float32) + scale * change).astype(weight.dtype)


def _is_stacked(path: str) -> bool:
    return "/layers/" in path and not _LAYER.search(path)


def _first(path: str, leaf: jax.ShapeDtypeStruct, seed: int) -> jax.Array:
    if path.endswith("/b"):
        return jnp.zeros(leaf.shape, leaf.dtype)
    inputs = math.prod(leaf.shape[2 if _is_stacked(path) else 1:])
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
    return (jax.random.normal(key, leaf.shape) * inputs**-0.5).astype(leaf.dtype)


def _with_adapters(name: str, graphdef: nnx.GraphDef, params: dict, config: LoraConfig, chosen: set[str],
                   mesh: Mesh) -> tuple[nnx.GraphDef, dict]:
    def build(*_) -> nnx.Module:
        model = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
        for path, linear in list(_linears(name, model)):
            if path in chosen:
                linear.lora = Lora(linear, config.rank, config.alpha / config.rank)
        return model

    return sharding.abstract(build, None, mesh)


def _linears(name: str, model: nnx.Module) -> Iterator[tuple[str, Linear]]:
    """(path of its weight without a layer's number, module) of every Linear."""
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear):
            yield _LAYER.sub("/layers/", "/".join(map(str, (name, *path, "weight")))), module


def _weights(name: str, graphdef: nnx.GraphDef, params: dict) -> Iterator[str]:
    return (path for path, _ in _linears(name, nnx.merge(graphdef, params)))


def _chosen(paths: Sequence[str], patterns: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        own = fnmatch.filter(paths, pattern)
        if not own:
            near = difflib.get_close_matches(pattern, sorted(set(paths)), 3, 0)
            raise OmniError(f"lora.patterns: {pattern!r} fits no matrix; near it are {', '.join(near)}")
        found |= set(own)
    return found
