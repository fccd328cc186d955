"""Strict import: the tensors of a Hugging Face directory, straight into sharded arrays.

Everything is checked by names and shapes before the first byte of a weight is read. Then each shard of each leaf is
put together from just the slices it needs, in one buffer of the wanted type: the host never holds more.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights.files import progress_bar
from omni_jax.weights.names import Row, canonical, check_tree, in_file_order, leaves, nest, rows
from omni_jax.weights.safetensors_files import Tensor, read_directory

_WEIGHT_TYPES = ("float64", "float32", "float16", "bfloat16")
_SHOWN = 3  # how many names an error lists before it only counts


# A checkpoint's tensors in our order: per row of the name tables its layers.
Matched = list[tuple[Row, list[Tensor]]]


def load_huggingface(directory: str | Path, config: OmniConfig, abstract: dict, progress: bool = False) -> dict:
    """The parameters of the networks that are roots of `abstract`, from a Hugging Face directory.

    Args:
      abstract: nested dict of `jax.ShapeDtypeStruct` with shardings; its paths and shapes must be those of the tables.
      progress: show a bar on stderr if it takes over a second.
    Returns: the same tree of arrays, in the abstract leaves' types and shardings.
    Raises: OmniError naming missing, unknown, doubled or misshaped tensors, before any is read.
    """
    check_tree(abstract, config)
    matched = match(read_directory(directory), config, directory)
    found = [(row, layers) for row, layers in matched if row.section.network in abstract]
    wanted, params = dict(leaves(abstract)), {}
    with progress_bar(sum(math.prod(row.shape) for row, _ in found), "loading", progress, " weights") as bar:
        for row, layers in found:
            params |= place_row(row, layers, wanted)
            bar.update(math.prod(row.shape))
    return nest({path: params[path] for path in wanted})


def match(tensors: Mapping[str, Tensor], config: OmniConfig, where: str | Path = "checkpoint") -> Matched:
    """Pairs a checkpoint's tensors with the name tables. Raises OmniError unless they fit exactly."""
    found = _sort(tensors, where)
    table = rows(config)
    expected = {name: row for row in table for name in row.names()}
    _refuse_names(found, expected, config, where)
    for name, row in expected.items():
        _check_tensor(found[name], row, where)
    return [(row, [found[name] for name in row.names()]) for row in table]


def _sort(tensors: Mapping[str, Tensor], where) -> dict[str, Tensor]:
    """{hub name: tensor}, with doubles across the two schemes refused."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = canonical(name)
        if key in found:
            raise OmniError(f"{where}: tensor {name} is doubled: {found[key].name} is the same tensor by another name; "
                            "keep one of the two")
        found[key] = tensor
    return found


def _refuse_names(found: Mapping[str, Tensor], expected: Mapping[str, Row], config: OmniConfig, where) -> None:
    missing = [name for name in expected if name not in found]
    unknown = [tensor.name for name, tensor in found.items() if name not in expected]
    if missing and unknown:
        raise OmniError(f"{where}: {listed(missing, 'missing')}, and {listed(unknown, 'unknown')}; the checkpoint is "
                        f"not the model that its config.json describes{_layer_hint(config)}")
    if missing:
        raise OmniError(f"{where}: {listed(missing, 'missing')}; fetch the whole checkpoint, or correct config.json"
                        f"{_layer_hint(config)}")
    if unknown == [config.thinker_prefix + "lm_head.weight"]:
        raise OmniError(f"{where}: tensor {unknown[0]} is unknown, because config.json sets tie_word_embeddings; "
                        "set it to false, or remove the tensor")
    if unknown and all(name.startswith(("talker.", "token2wav.")) for name in unknown) and config.talker_config is None:
        raise OmniError(f"{where}: {listed(unknown, 'unknown')}, because config.json describes no speaking networks or "
                        "sets enable_audio_output to false; correct it, or remove the tensors")
    if unknown:
        raise OmniError(f"{where}: {listed(unknown, 'unknown')}; remove what is not of this model, or correct "
                        f"config.json{_layer_hint(config)}")


def listed(names: list[str], what: str) -> str:
    """`tensor a is missing`, or `7 tensors are missing (a, b, c and 4 more)`."""
    if len(names) == 1:
        return f"tensor {names[0]} is {what}"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} tensors are {what} ({', '.join(names[:_SHOWN])}{more})"


def _layer_hint(config: OmniConfig) -> str:
    thinker = config.thinker_config
    return (f" (it says num_hidden_layers {thinker.text_config.num_hidden_layers}, "
            f"encoder_layers {thinker.audio_config.encoder_layers}, depth {thinker.vision_config.depth})")


def _check_tensor(tensor: Tensor, row: Row, where) -> None:
    if tensor.shape != row.file_shape:
        raise OmniError(f"{where}: tensor {tensor.name} is misshaped: {list(tensor.shape)} in the file, "
                        f"{list(row.file_shape)} by config.json ({row.fields()}); the two are not of one model")
    check_type(tensor, where)


def check_type(tensor: Tensor, where: str | Path) -> None:
    """Raises OmniError unless the tensor is of a type that weights have."""
    if tensor.dtype.name not in _WEIGHT_TYPES:
        raise OmniError(f"{where}: tensor {tensor.name} is {tensor.dtype.name}; weights must be float32, float16 or "
                        "bfloat16, so convert the checkpoint before")


def place_row(row: Row, layers: list[Tensor], wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """{path: array} of a row's leaves, one or one a layer, in the types and shardings of `wanted`."""
    paths = row.leaf_paths(wanted)
    if paths == [row.path]:
        return {row.path: _place(row, layers, wanted[row.path])}
    layer_row = dataclasses.replace(row, layers=None)
    return {path: _place(layer_row, [layer], wanted[path]) for path, layer in zip(paths, layers, strict=True)}


def _place(row: Row, layers: list[Tensor], wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """One leaf, shard by shard: each distinct shard is read once and put on every device that holds it."""
    if wanted.sharding is None:
        return jax.device_put(_read_shard(row, layers, tuple(slice(0, n) for n in row.shape), wanted.dtype))
    holders: dict[tuple, list[Any]] = {}
    for device, index in wanted.sharding.addressable_devices_indices_map(row.shape).items():
        span = tuple(slice(*s.indices(n)) for s, n in zip(index, row.shape, strict=True))
        holders.setdefault(tuple((s.start, s.stop) for s in span), []).append(device)
    shards = []
    for span, devices in holders.items():
        buffer = _read_shard(row, layers, tuple(slice(*s) for s in span), wanted.dtype)
        shards += jax.block_until_ready([jax.device_put(buffer, device) for device in devices])
    return jax.make_array_from_single_device_arrays(row.shape, wanted.sharding, shards)


def _read_shard(row: Row, layers: list[Tensor], span: tuple[slice, ...], dtype) -> np.ndarray:
    out = np.empty([s.stop - s.start for s in span], dtype)
    if row.layers is None:
        _copy(row, layers[0], span, out)
    else:
        for target, layer in enumerate(range(span[0].start, span[0].stop)):
            _copy(row, layers[layer], span[1:], out[target])
    return out


def _copy(row: Row, tensor: Tensor, span: tuple[slice, ...], out: np.ndarray) -> None:
    """Copies one layer's `span` (in our axes) from the file (in its axes) into `out`, converting the type."""
    source, ours = tensor.load(), list(span)
    pick_file, split, pick_ours = [], [], []
    for word in row.layout:
        axes = [ours.pop(0) for _ in word.split(".")]
        if "*" in word:  # several axes there, one here: take them whole, and cut after the reshape
            pick_file += [slice(None)] * len(word.split("*"))
            split.append(math.prod(map(row.size, word.split("*"))))
            pick_ours.append(axes[0])
            continue
        inner = [row.size(letter) for letter in word.split(".")][1:]
        step = math.prod(inner)
        pick_file.append(slice(axes[0].start * step, axes[0].stop * step))
        split += [axes[0].stop - axes[0].start, *inner]
        pick_ours += [slice(None), *axes[1:]]
    out[...] = source[tuple(pick_file)].reshape(split)[tuple(pick_ours)]


def ordered_tensors(matched: Matched) -> Iterator[Tensor]:
    """The tensors under their hub names, layer by layer, unchanged otherwise."""
    found = {row.path: layers for row, layers in matched}
    for row, layer in in_file_order([row for row, _ in matched]):
        yield dataclasses.replace(found[row.path][layer], name=row.name_of(layer))
