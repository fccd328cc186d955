"""The networks of a checkpoint on a mesh: what the jitted steps need."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.models.talker import Talker
from omni_jax.models.thinker import Thinker

DECODERS = {"thinker": Thinker, "talker": Talker}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on its mesh. `ends`: the ids that end what it draws."""

    config: Any
    graphdef: nnx.GraphDef
    params: dict
    mesh: Mesh
    ends: tuple[int, ...]


def abstract_networks(config: OmniConfig, mesh: Mesh, dtype: Any, scanned: bool | None = None,
                      names: Sequence[str] | None = None) -> dict[str, tuple[nnx.GraphDef, dict]]:
    """{name: (graphdef, abstract params)} of the networks that `config` has (or of those named).

    Decoders take the form that is fastest on the mesh's devices: layers stacked and scanned on TPU, apart elsewhere
    (see models.layers.each), unless `scanned` says which.
    """
    if scanned is None:
        scanned = mesh.devices.flat[0].platform == "tpu"
    found = {}
    for name, network in DECODERS.items():
        part = getattr(config, f"{name}_config")
        if part is not None and (names is None or name in names):
            found[name] = sharding.abstract(functools.partial(network, scanned=scanned), part, mesh, dtype)
    return found
