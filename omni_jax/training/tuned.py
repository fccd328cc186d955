"""What a run has learnt, back in the tensors of the checkpoint that it started from."""

import functools
from collections.abc import Mapping

import numpy as np

from omni_jax.errors import OmniError
from omni_jax.training.config import LoraConfig
from omni_jax.training.lora import add_adapter
from omni_jax.weights.importer import Matched
from omni_jax.weights.names import Row
from omni_jax.weights.safetensors_files import Tensor

_ADVICE = "put the checkpoint back that the run started from"


def tuned(matched: Matched, learnt: Mapping[str, np.ndarray], lora: LoraConfig | None = None) -> Matched:
    """A checkpoint's tensors with what was learnt in their places, adapters added to their weights, in the
    checkpoint's types. Tensors of which nothing was learnt are the very same.

    Args:
      learnt: {path: float32 array}, layers stacked or apart.
    Raises: OmniError for a path or a shape that is not of the model.
    """
    left = set(learnt)
    found = [(row, [_tensor(row, layer, tensor, learnt, lora, left) for layer, tensor in enumerate(tensors)])
             for row, tensors in matched]
    if left:
        raise OmniError(f"parameter {min(left)} of the run is not of its starting checkpoint ({len(left)} such); "
                        f"{_ADVICE}")
    return found


def _tensor(row: Row, layer: int, tensor: Tensor, learnt: Mapping[str, np.ndarray], lora: LoraConfig | None,
            left: set[str]) -> Tensor:
    paths = [row.path]
    if lora and row.path.endswith("/weight"):
        paths += [row.path.removesuffix("weight") + f"lora/{leaf}" for leaf in "ab"]
    weight, *adapter = (_of_layer(row, path, layer, learnt, left) for path in paths)
    adapter = [leaf for leaf in adapter if leaf is not None]
    if weight is None and not adapter:
        return tensor
    fits = weight is None or weight.shape == row.layer_shape
    if adapter and fits:
        outputs, inputs = adapter[-1].shape[:-1], adapter[0].shape[1:]
        fits = len(adapter) == 2 and (*outputs, *inputs) == row.layer_shape
    if not fits:
        shapes = [list(leaf.shape) for leaf in (weight, *adapter) if leaf is not None]
        raise OmniError(f"parameter {row.path} of the run has the shapes {shapes}, and {list(row.layer_shape)} in its "
                        f"starting checkpoint; {_ADVICE}")
    load = functools.partial(_load, row, tensor, weight, adapter, lora.alpha / lora.rank if adapter else 0)
    return Tensor(tensor.name, tensor.dtype, tensor.shape, load)


def _of_layer(row: Row, path: str, layer: int, learnt: Mapping[str, np.ndarray], left: set[str]) -> np.ndarray | None:
    """One layer of what was learnt at a path of stacked layers, if anything was."""
    if path in learnt:
        left.discard(path)
        return learnt[path] if row.layers is None else _layers(row, path, learnt[path])[layer]
    path = path.replace("/layers/", f"/layers/{layer}/")
    left.discard(path)
    return learnt.get(path)


def _layers(row: Row, path: str, stacked: np.ndarray) -> np.ndarray:
    if len(stacked) != row.layers:
        raise OmniError(f"parameter {path} of the run has {len(stacked)} layers, and {row.layers} in its starting "
                        f"checkpoint; {_ADVICE}")
    return stacked


def _load(row: Row, tensor: Tensor, weight: np.ndarray | None, adapter: list[np.ndarray], scale: float) -> np.ndarray:
    whole = tensor.load().reshape(row.layer_shape) if weight is None else weight
    whole = np.asarray(add_adapter(whole, *adapter, scale)) if adapter else whole
    return whole.astype(tensor.dtype).reshape(row.file_shape)
