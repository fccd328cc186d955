"""Random checkpoints of the released sizes, whole, by our name tables."""

import functools
import hashlib
import math
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from omni_jax.config import OmniConfig
from omni_jax.weights import Tensor, save_huggingface
from omni_jax.weights.names import in_file_order, rows
from omni_jax.weights.random_init import random_speakers
from omni_jax.weights.random_text import write_text_files

CONFIGS = Path(__file__).parent.parent.parent / "configs"
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_POOL = 1 << 22  # 64-bit words of random bits, drawn once and varied for every tensor


def config_of(size: str) -> OmniConfig:
    return OmniConfig.load(CONFIGS / f"qwen2.5-omni-{size}.json")


def write_release(directory: Path, size: str) -> list[Tensor]:
    """Writes a random bfloat16 checkpoint of the size "3b" or "7b" with all that a release holds; its tensors."""
    config = config_of(size)
    tensors = [_tensor(row.name_of(layer), _BFLOAT16, row.file_shape) for row, layer in in_file_order(rows(config))]
    save_huggingface(directory, config, tensors, random_speakers(config),
                     write_companions=lambda target: write_text_files(target, config))
    return tensors


def _tensor(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, dtype, shape, functools.partial(_draw, name, shape))


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random signs and mantissas under one exponent, which keeps activations near 1. A function of the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    words = np.empty(-(-math.prod(shape) // 4), np.uint64)
    keys = np.random.SFC64(int.from_bytes(digest, "little")).random_raw(-(-words.size // _POOL))
    for key, begin in zip(keys, range(0, words.size, _POOL), strict=True):
        part = words[begin:begin + _POOL]
        np.bitwise_xor(_pool()[: part.size], key, out=part)
    bits = words.view(np.uint16)[: math.prod(shape)]
    bits &= 0x807F
    bits |= (127 + _exponent(name, shape)) << 7
    return bits.view(_BFLOAT16).reshape(shape)


@functools.cache
def _pool() -> np.ndarray:
    return np.random.SFC64(0).random_raw(_POOL)


def _exponent(name: str, shape: tuple[int, ...]) -> int:
    """Of a power of two near the usual standard deviation: 1 for norms and embeddings, fan_in**-0.5 for weights."""
    if "embed_tokens" in name or (len(shape) == 1 and name.endswith("weight")):
        return 0
    return -6 if len(shape) < 2 else -math.ceil(math.log2(math.prod(shape[1:])) / 2)


def same_bytes(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors agree in name, type, shape and every byte; compared in pieces, from the file's own pages."""
    if (left.name, left.dtype, left.shape) != (right.name, right.dtype, right.shape):
        return False
    ours, theirs = (np.asarray(tensor.load()).reshape(-1).view(np.uint8) for tensor in (left, right))
    step = 1 << 26
    return all(np.array_equal(ours[i:i + step], theirs[i:i + step]) for i in range(0, ours.size, step))


def require_disk(directory: Path, gigabytes: float) -> None:
    """Skips the test where the disk is too small."""
    free = shutil.disk_usage(directory).free / 1e9
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes:g} GB of disk and {directory} has {free:.0f}; set OMNI_FULL_SIZE_DIR to a "
                    "directory on a larger one")
