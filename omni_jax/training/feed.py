"""Batches onto the mesh: each process puts its own rows where its devices want them."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax.errors import OmniError
from omni_jax.sharding import resolve
from omni_jax.training.batch import TrainBatch


def data_shard(mesh: Mesh, rows: int) -> tuple[int, int]:
    """(index, count): which of how many equal parts of a batch of `rows` this process holds. Raises OmniError."""
    if jax.process_count() == 1:
        return 0, 1
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % ways:
        raise OmniError(f"a micro-batch of {rows} rows does not divide over {ways} devices of data and fsdp; make "
                        f"batch_size / accumulate a multiple of {ways}")
    sharding = NamedSharding(mesh, resolve(("batch",), (rows,), mesh))
    slices = sharding.addressable_devices_indices_map((rows,)).values()
    starts = [part.start or 0 for part, in slices]
    ends = [rows if part.stop is None else part.stop for part, in slices]
    own = max(ends) - min(starts)
    return min(starts) // own, rows // own


def put(batch: TrainBatch, mesh: Mesh, shard: tuple[int, int]) -> TrainBatch:
    """A batch [A, …] of this process's rows and media as arrays over the mesh, of all processes' together."""
    index, count = shard
    _, rows, length = batch.token_ids.shape

    def anywhere(destination: np.ndarray) -> np.ndarray:
        moved = destination + index * rows * length
        return np.where(destination >= rows * length, count * rows * length, moved).astype(np.int32)

    batch = batch._replace(audio=tuple(g._replace(destination=anywhere(g.destination)) for g in batch.audio),
                           vision=tuple(g._replace(destination=anywhere(g.destination)) for g in batch.vision))
    return jax.tree.map(lambda x: _place(x, mesh, count), batch)


def _place(local: np.ndarray, mesh: Mesh, count: int) -> Any:
    shape = (local.shape[0], local.shape[1] * count, *local.shape[2:])
    spec = resolve(("batch",), shape[1:2], mesh)
    if count > 1 and spec[0] != ("data", "fsdp") and math.prod(mesh.shape[a] for a in ("data", "fsdp")) > 1:
        raise OmniError(f"data.media: {shape[1]} blocks or frame pairs of all hosts do not divide over the devices of "
                        "data and fsdp; choose multiples")
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(None, *spec)), local, shape)
