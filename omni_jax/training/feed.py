"""Batches onto the mesh: each process puts its own rows where its devices want them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.errors import OmniError
from omni_jax.sharding import resolve


class Shard(NamedTuple):
    """One of `count` equal parts of every micro-batch, which one process or several alike hold. rows: its rows' places
    in the whole, ascending; they need not be neighbours, for meshes are laid along the chips' links."""

    index: int
    count: int
    rows: tuple[int, ...]


def data_shard(mesh: Mesh, rows: int) -> Shard:
    """This process's part of a micro-batch of `rows` over all devices. Raises OmniError if they do not divide."""
    if jax.process_count() == 1:
        return Shard(0, 1, tuple(range(rows)))
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % ways:
        raise OmniError(f"a micro-batch of {rows} rows does not divide over {ways} devices of data and fsdp; make "
                        f"batch_size / accumulate a multiple of {ways}")
    sharding = NamedSharding(mesh, resolve(("batch",), (rows,), mesh))
    held: dict[int, set[int]] = {}
    for device, (part,) in sharding.devices_indices_map((rows,)).items():
        held.setdefault(device.process_index, set()).update(range(*part.indices(rows)))
    return shard_among(held, jax.process_index())


def shard_among(held: Mapping[int, Iterable[int]], process: int) -> Shard:
    """The part of one process, from the rows that each process's devices hold. Raises OmniError unless any two
    processes hold the same rows or none in common, and all equally many."""
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if len(set(map(len, parts))) > 1 or sum(map(len, parts)) != len(set().union(*parts)):
        raise OmniError("mesh: some hosts would share a part of their rows with others; choose another, such as fsdp "
                        "over the devices of a host and data over hosts")
    own = tuple(sorted(held[process]))
    return Shard(parts.index(own), len(parts), own)


def put(batch: Any, mesh: Mesh, shard: Shard | None = None) -> Any:
    """A batch [A, …] (see training.batch) of this process's rows and media as arrays over the mesh, of all processes'
    together. shard: the process's part; None: the whole."""
    rows = jax.tree.leaves(batch)[0].shape[1]
    count = shard.count if shard else 1
    places = np.array([*(shard.rows if shard else range(rows)), rows * count])  # the last: padding, beyond the end
    return jax.tree.map(lambda x: _place(x, mesh, count), batch.moved(places))


def _place(local: np.ndarray, mesh: Mesh, count: int) -> Any:
    shape = (local.shape[0], local.shape[1] * count, *local.shape[2:])
    spec = resolve(("batch",), shape[1:2], mesh)
    if count > 1 and spec[0] != ("data", "fsdp") and math.prod(mesh.shape[a] for a in ("data", "fsdp")) > 1:
        raise OmniError(f"data.media: {shape[1]} blocks or frame pairs of all hosts do not divide over the devices of "
                        "data and fsdp; choose multiples")
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(None, *spec)), local, shape)
