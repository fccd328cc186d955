"""Networks that lie beside a checkpoint, in files of their own: the releases have none of them, and other readers of
the checkpoint never see them.

    codec_encoder.safetensors, codec_encoder.json    mel to codes; its sizes, and what mels they are
    speaker_encoder.safetensors                      mel to a speaker vector; its sizes are the DiT's

Tensors have the paths of our tree, with dots and without the network's own name.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omni_jax.config import CodecConfig, read_config
from omni_jax.errors import OmniError, require
from omni_jax.weights.files import whole_file
from omni_jax.weights.importer import check_type, listed
from omni_jax.weights.safetensors_files import Tensor, read_file, write_file

CODEC = "codec_encoder"
SPEAKER = "speaker_encoder"
NETWORKS = (CODEC, SPEAKER)


def exists(directory: str | Path, name: str) -> bool:
    """Whether a network lies beside a checkpoint."""
    return _file(directory, name).is_file()


def files(directory: str | Path) -> list[Path]:
    """All files that lie beside a checkpoint for these networks."""
    paths = (codec_file(directory), *(_file(directory, name) for name in NETWORKS))
    return [path for path in paths if path.is_file()]


def require_network(directory: str | Path, name: str) -> None:
    """Raises OmniError unless a network lies beside a checkpoint."""
    require(exists(directory, name), str(_file(directory, name)), "is missing: the checkpoint has no "
            f"{name.replace('_', ' ')}; train one, and export it to this directory")


def save(directory: str | Path, params: Mapping[str, Any], codec: CodecConfig | None = None) -> list[str]:
    """Writes networks beside a checkpoint, in place of those there, each file whole or not at all; returns their names.

    Args:
      params: {path: array}, paths beginning with the network's name, as in "codec_encoder/input/weight".
      codec: what belongs to a codec encoder.
    Raises: OmniError.
    """
    names = [name for name in NETWORKS if any(path.startswith(f"{name}/") for path in params)]
    if CODEC in names:
        with whole_file(codec_file(directory)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(codec), indent=2) + "\n")
    for name in names:
        with whole_file(_file(directory, name)) as partial:
            write_file(partial, [_tensor(path, leaf) for path, leaf in params.items() if path.startswith(f"{name}/")])
    return names


def load_codec_config(directory: str | Path) -> CodecConfig:
    """The sizes of the codec encoder that lies beside a checkpoint. Raises OmniError."""
    return read_config(CodecConfig, codec_file(directory), f"it belongs to {_file(directory, CODEC).name}")


def load(directory: str | Path, name: str, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """{path: array} of a network, in the types and shardings of `wanted`, whose paths begin with its name. Raises
    OmniError unless the file has just these names and shapes, before any array is read."""
    require_network(directory, name)
    path = _file(directory, name)
    found = read_file(path)
    _check(path, {_name(key): tuple(leaf.shape) for key, leaf in wanted.items()}, found)
    place = lambda leaf, tensor: jax.device_put(np.asarray(tensor.load()).astype(leaf.dtype), leaf.sharding)
    return {key: place(leaf, found[_name(key)]) for key, leaf in wanted.items()}


def _check(path: Path, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> None:
    for names, what in ((shapes.keys() - found.keys(), "missing"), (found.keys() - shapes.keys(), "unknown")):
        if names:
            raise OmniError(f"{path}: {listed(sorted(names), what)}; the file is not of this network and its sizes")
    for name, tensor in found.items():
        check_type(tensor, path)
        if tensor.shape != shapes[name]:
            raise OmniError(f"{path}: tensor {name} is misshaped: {list(tensor.shape)} in the file, "
                            f"{list(shapes[name])} by its configuration; the two are not of one network")


def _tensor(path: str, leaf: Any) -> Tensor:
    """Float32 always: these networks are small."""
    return Tensor(_name(path), np.dtype(np.float32), tuple(leaf.shape), lambda: np.asarray(leaf, np.float32))


def _name(path: str) -> str:
    return path.partition("/")[2].replace("/", ".")


def _file(directory: str | Path, name: str) -> Path:
    return Path(directory) / f"{name}.safetensors"


def codec_file(directory: str | Path) -> Path:
    """What holds the sizes of a codec encoder."""
    return Path(directory) / f"{CODEC}.json"
