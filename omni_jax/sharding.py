"""The mesh, the one table of logical-axis rules, and abstract (shape + sharding) parameters.

Networks name the axes of each weight by what they mean ("heads", "mlp", ...). This table alone says on which mesh
axes they lie. A rule is resolved against the real size: where the size does not divide (28 heads on 8 chips, 2 kv
heads on 4), the rule's next choice is taken, and at last the axis is replicated.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from omni_jax.errors import OmniError

MESH_AXES = ("data", "fsdp", "model")

# Logical axis -> mesh axes to try in order; each choice is a mesh axis or a tuple of them.
RULES: dict[str, tuple] = {
    "layers": (),                            # scanned over, so never split
    "batch": (("data", "fsdp"), "data"),     # rows of a batch, media blocks
    "mel_blocks": (("data", "fsdp"), "data"),  # the DiT's blocks of 24 mel frames, where the rows are too few
    "blocks": (("data", "fsdp", "model"), ("data", "fsdp"), "data"),  # of much media: see media_axis
    "embed": ("fsdp", "model"),              # the residual stream; `model` where nothing else of the weight divides
    "norm": (),                              # vectors of that width: too small to be worth moving
    "vocab": ("model",),
    "heads": ("model",),                     # 28 heads on 8 devices: falls to head_dim
    "kv_heads": ("model",),                  # 4 or 2 kv heads on 8 devices: falls to head_dim
    "head_dim": ("model",),                  # taken only when the heads could not be split
    "mlp": ("model",),                       # 3420 in the vision tower on 8 devices: falls to embed
    "conv_in": (),                           # mel bins, patch pixels, taps: small
    "slots": ("model",),                     # of the cache, where the kv heads could not be split
}


def make_mesh(spec: str | Mesh | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh from "data=1,fsdp=2,model=4" (axes left out are 1); None: all devices on `model`.

    Axis types are Auto, those of a given Mesh too: shardings of intermediate values are the compiler's. Raises
    OmniError.
    """
    if isinstance(spec, Mesh):
        return _with_our_axes(spec)
    if spec is not None and not isinstance(spec, str):
        raise OmniError(f'mesh must be text as in "data=1,model=4" or a jax Mesh, not a {type(spec).__name__}')
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict.fromkeys(MESH_AXES, 1)
    if spec is None:
        sizes["model"] = len(devices)
    for part in filter(None, (spec or "").replace(" ", "").split(",")):
        name, _, size = part.partition("=")
        if name not in sizes or not size.isdecimal() or int(size) < 1:
            raise OmniError(f"mesh {spec!r}: {part!r} is not one of {', '.join(MESH_AXES)} with a size, as in model=4")
        sizes[name] = int(size)
    count = math.prod(sizes.values())
    if count > len(devices):
        raise OmniError(f"mesh {spec!r}: needs {count} devices and {len(devices)} are here; lower an axis")
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count])


def _with_our_axes(mesh: Mesh) -> Mesh:
    if mesh.axis_names != MESH_AXES:
        raise OmniError(f"mesh: a Mesh must have the axes {', '.join(MESH_AXES)} in this order, and this one has "
                        f"{', '.join(map(str, mesh.axis_names)) or 'none'}; give those left out the size 1")
    automatic = (AxisType.Auto,) * len(MESH_AXES)
    return mesh if mesh.axis_types == automatic else Mesh(mesh.devices, MESH_AXES, axis_types=automatic)


def default_mesh(kv_heads: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices: as many on `model` as divide the kv heads, the others on `fsdp`.

    Beyond its kv heads `model` gains nothing: the cache can then be split by slots only, and XLA gathers it to write.
    """
    devices = list(jax.devices() if devices is None else devices)
    model = math.gcd(kv_heads, len(devices))
    return make_mesh(f"fsdp={len(devices) // model},model={model}", devices)


def resolve(axes: Sequence[str | tuple[str, int] | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """The partition of an array with these logical axes and sizes.

    An axis may be (name, n): groups of n numbers that stay together, as heads stored flat. All axes' first choices
    come before any second choice; a mesh axis is used once, and those of size 1 never.
    """
    chosen: list = [None] * len(axes)
    used: set[str] = set()
    names, units = zip(*(axis if isinstance(axis, tuple) else (axis, 1) for axis in axes), strict=True)
    choices = [RULES[name] if name else () for name in names]
    shape = [size // unit for size, unit in zip(shape, units, strict=True)]
    for rank in range(max(map(len, choices), default=0)):
        for i, size in enumerate(shape):
            if chosen[i] is not None or rank >= len(choices[i]):
                continue
            wanted = {choices[i][rank]} if isinstance(choices[i][rank], str) else set(choices[i][rank])
            ways = math.prod(mesh.shape[name] for name in wanted)
            if ways > 1 and size % ways == 0 and not used & wanted:
                used |= wanted
                chosen[i] = choices[i][rank]
    return PartitionSpec(*chosen)


def named_sharding(axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, resolve(axes, shape, mesh))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` with its logical axes laid on the mesh in context (`jax.set_mesh`); without a mesh, `x` itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, resolve(axes, x.shape, mesh))


def on_one_device() -> bool:
    """Whether the mesh in context has one device, or there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def media_axis(rows: int, width: int, hidden: int) -> str:
    """The logical axis of a tower's blocks of media: `rows` vectors of `width` in all, through layers whose MLP has
    `hidden`. Split over all devices, each gathers every layer's weights, width * (4 width + 2 hidden); split over a
    part of them, the others add up the rows twice a layer, which sends four times width * rows."""
    return "blocks" if rows > width + hidden / 2 else "batch"


class Structure(nnx.GraphDef):
    """A GraphDef that is hashed once and not, as its base, at every call of a jitted function: that takes half a
    millisecond for ten layers."""

    @functools.cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _OneKey:
    """In place of nnx.Rngs where only shapes are asked for: its counting, under a trace, takes seconds, as every step
    of it searches all that was traced before."""

    key: jax.Array

    def params(self) -> jax.Array:
        return self.key

    def split(self, count: int) -> "_OneKey":
        return _OneKey(jax.random.split(self.key, count))


def abstract(network: Callable, config: Any, mesh: Mesh, dtype: Any = jnp.float32) -> tuple[nnx.GraphDef, dict]:
    """(graphdef, params) of a network without any memory: `params` is the nested dict of its weights, whose leaves
    are jax.ShapeDtypeStruct with the sharding that the rules give. Layers of a list have their numbers as keys."""
    with nnx.use_eager_sharding(False):  # logical names are not mesh axes: nothing may apply them by itself
        graphdef, state = nnx.split(nnx.eval_shape(lambda: network(config, _OneKey(jax.random.key(0)), dtype)))
    structure = Structure(graphdef.nodes, graphdef.attributes, graphdef.num_leaves)
    params: dict = {}
    for path, variable in nnx.to_flat_state(state):
        value = variable.get_value()
        sharding = named_sharding(variable.get_metadata()["out_sharding"], value.shape, mesh)
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
    return structure, params
