"""The networks of a checkpoint on a mesh: what the jitted steps need."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.models.talker import Talker
from omni_jax.models.thinker import Thinker
from omni_jax.models.token2wav import Token2Wav

NETWORKS = {"thinker": Thinker, "talker": Talker, "token2wav": Token2Wav}


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

    Layers take the form that is fastest on the mesh's devices: stacked and scanned on TPU, apart elsewhere (see
    models.layers.each), unless `scanned` says which. Token2Wav is float32 whatever the dtype: its solver needs it.
    """
    if scanned is None:
        scanned = mesh.devices.flat[0].platform == "tpu"
    found = {}
    for name, network in NETWORKS.items():
        part = getattr(config, f"{name}_config")
        if part is not None and (names is None or name in names):
            own = jnp.float32 if network is Token2Wav else dtype
            found[name] = sharding.abstract(functools.partial(network, scanned=scanned), part, mesh, own)
    return found
