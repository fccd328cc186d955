"""Networks that lie beside a checkpoint, in files of their own: the releases have none of them, and other readers of
the checkpoint never see them.

    codec_encoder.safetensors, codec_encoder.json    sound to codes, and its sizes
    speaker_encoder.safetensors                      sound to a speaker vector; its sizes are the DiT's

Tensors have the paths of our tree, with dots.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omni_jax.config import read_config
from omni_jax.errors import OmniError
from omni_jax.weights.files import whole_file
from omni_jax.weights.importer import check_type, listed
from omni_jax.weights.names import leaves, nest
from omni_jax.weights.safetensors_files import Tensor, read_file, write_file

NETWORKS = ("codec_encoder", "speaker_encoder")


def find_beside(directory: str | Path) -> list[str]:
    """The networks that lie beside a checkpoint."""
    return [name for name in NETWORKS if _file(directory, name).is_file()]


def write_beside(directory: str | Path, name: str, params: dict, config: Any = None) -> None:
    """Writes a network's parameters (nested dict of arrays) as float32, and its `config` (a dataclass), if it has one
    of its own; in place of what was there, each file whole or not at all. Raises OmniError."""
    tensors = [Tensor(path.replace("/", "."), np.dtype(np.float32), tuple(leaf.shape),
                      lambda leaf=leaf: np.asarray(leaf, np.float32)) for path, leaf in leaves(params)]
    with whole_file(_file(directory, name)) as partial:
        write_file(partial, tensors)
        if config is not None:
            with whole_file(_config_file(directory, name)) as text:
                text.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read_beside_config(directory: str | Path, name: str, cls: type) -> Any:
    """The sizes of a network that lies beside a checkpoint. Raises OmniError."""
    return read_config(cls, _config_file(directory, name), f"it belongs to {_file(directory, name).name}")


def read_beside(directory: str | Path, name: str, abstract: dict) -> dict:
    """The parameters of a network, in the abstract tree's types and shardings. Raises OmniError unless names and shapes
    are the tree's, before anything is read."""
    path = _file(directory, name)
    if not path.is_file():
        raise OmniError(f"{path}: is missing: the checkpoint has no {name.replace('_', ' ')}; train one, and export it "
                        "to this directory")
    wanted, found = dict(leaves(abstract)), read_file(path)
    _check(path, wanted, found)
    place = lambda leaf, tensor: jax.device_put(np.asarray(tensor.load()).astype(leaf.dtype), leaf.sharding)
    return nest({key: place(leaf, found[key.replace("/", ".")]) for key, leaf in wanted.items()})


def _check(path: Path, wanted: Mapping[str, jax.ShapeDtypeStruct], found: Mapping[str, Tensor]) -> None:
    shapes = {key.replace("/", "."): tuple(leaf.shape) for key, leaf in wanted.items()}
    for names, what in ((shapes.keys() - found.keys(), "missing"), (found.keys() - shapes.keys(), "unknown")):
        if names:
            raise OmniError(f"{path}: {listed(sorted(names), what)}; the file is not of this network and its sizes")
    for name, tensor in found.items():
        check_type(tensor, path)
        if tensor.shape != shapes[name]:
            raise OmniError(f"{path}: tensor {name} is misshaped: {list(tensor.shape)} in the file, "
                            f"{list(shapes[name])} by its configuration; the two are not of one network")


def _file(directory: str | Path, name: str) -> Path:
    return Path(directory) / f"{name}.safetensors"


def _config_file(directory: str | Path, name: str) -> Path:
    return Path(directory) / f"{name}.json"
