"""Export: a Hugging Face directory that transformers loads, from parameters or from any stream of tensors."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.weights.files import copy_companions, progress_bar, whole_directory
from omni_jax.weights.importer import Matched, ordered_tensors
from omni_jax.weights.names import Row, check_tree, leaves, rows
from omni_jax.weights.safetensors_files import INDEX, SINGLE, Tensor, write_file
from omni_jax.weights.speakers import Speaker, write_speakers

MAX_SHARD_SIZE = 2_000_000_000  # bytes


def save_huggingface(directory: str | Path, config: OmniConfig, tensors: Iterable[Tensor],
                     speakers: Mapping[str, Speaker] | None = None, companions: str | Path | None = None,
                     write_companions: Callable[[Path], None] | None = None,
                     max_shard_size: int = MAX_SHARD_SIZE, progress: bool = False) -> list[str]:
    """Writes a Hugging Face checkpoint, tensor by tensor, whole or not at all.

    Args:
      tensors: under their hub names, written in this order and in their own types (`params_tensors` for a tree).
      speakers: written as spk_dict.pt, without which transformers refuses to load a whole model.
      companions: a directory whose tokenizer and preprocessor files are copied; `write_companions` is called with
        the new directory to write such files instead.
      max_shard_size: bytes; a tensor larger than that gets a file of its own.
    Returns: the names of the weight files.
    Raises: OmniError if the directory exists or cannot be written.
    """
    shards = _shards(tensors, max_shard_size)
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    names = [SINGLE] if len(shards) == 1 else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
                                               for i in range(len(shards))]
    with whole_directory(directory, total) as partial, progress_bar(total, "writing", progress) as bar:
        _write_json(partial / "config.json", config.to_json())
        for name, shard in zip(names, shards, strict=True):
            write_file(partial / name, shard, bar.update)
        if len(shards) > 1:
            places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            _write_json(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        if companions is not None:
            copy_companions(companions, partial)
        if write_companions is not None:
            write_companions(partial)
        if speakers:
            write_speakers(partial / "spk_dict.pt", speakers)
    return names


def params_tensors(params: dict, config: OmniConfig) -> list[Tensor]:
    """The tensors of a parameter tree under their hub names, a layer fetched from the devices at a time."""
    return list(ordered_tensors(match_params(params, config)))


def match_params(params: dict, config: OmniConfig) -> Matched:
    """A parameter tree in the form that the writers take."""
    check_tree(params, config)
    arrays, matched = dict(leaves(params)), []
    for row in rows(config, params):
        found = [arrays[path] for path in row.leaf_paths(arrays)]
        dtype, stacked = np.dtype(found[0].dtype), row.layers is not None and len(found) == 1
        matched.append((row, [
            Tensor(name, dtype, row.file_shape,
                   functools.partial(_fetch, row, found[0 if stacked else layer], layer if stacked else None))
            for layer, name in enumerate(row.names())]))
    return matched


def _fetch(row: Row, array: jax.Array, layer: int | None) -> np.ndarray:
    return np.asarray(array if layer is None else array[layer]).reshape(row.file_shape)


def _shards(tensors: Iterable[Tensor], limit: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
