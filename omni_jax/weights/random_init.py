"""Random checkpoints of any configuration, for tests, demonstrations and benchmarks.

A tensor depends on the seed and its own name alone, so a checkpoint is the same whatever the shard size, and the first
layers of a deeper model are those of a shallower one.
"""

import functools
import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.weights.names import Row, in_file_order, rows
from omni_jax.weights.safetensors_files import Tensor
from omni_jax.weights.speakers import Speaker

_CHUNK = 1 << 18  # numbers drawn at a time, in float32
_BIAS, _SCALE = 0.02, 0.1  # standard deviations of biases, and of norm scales around 1
# Parts of Token2Wav that add up over many layers: drawn as the others, their mel and waveform would only clip.
_QUIETER = {"bigvgan/resblocks": 0.4, "bigvgan/last": 0.2, "dit/layers/modulation": 0.5, "dit/modulation": 0.5}
_SPEAKERS = {"Chelsie": 151872, "Ethan": 151870}  # the released voices and their first tokens
_REFERENCE_FRAMES = 300  # 3 s of reference mel


def random_tensors(config: OmniConfig, seed: int = 0, dtype: Any = "bfloat16", gain: float = 1.5) -> Iterator[Tensor]:
    """The tensors of all networks of `config` under their hub names, each drawn only when it is loaded.

    Args:
      gain: standard deviation of the weights in units of 1 / sqrt(fan_in).
    """
    for row, layer in in_file_order(rows(config)):
        name = row.name_of(layer)
        load = functools.partial(_draw, row, name, seed, np.dtype(dtype), gain)
        yield Tensor(name, np.dtype(dtype), row.file_shape, load)


def random_speakers(config: OmniConfig, seed: int = 0) -> dict[str, Speaker]:
    """Voices with the released names and random content: transformers loads no whole model without spk_dict.pt."""
    thinker, voices = config.thinker_config, {}
    size = thinker.text_config.vocab_size
    for last, (name, token) in enumerate(_SPEAKERS.items(), 1):
        generator = _generator(seed, f"speaker {name}")
        voices[name] = Speaker(token if token < size else size - last,
                               generator.standard_normal((1, 192), np.float32),
                               generator.standard_normal((1, _REFERENCE_FRAMES, 80), np.float32))
    return voices


def _draw(row: Row, name: str, seed: int, dtype: np.dtype, gain: float) -> np.ndarray:
    mean, deviation = _distribution(row, gain)
    out, generator = np.empty(math.prod(row.file_shape), dtype), _generator(seed, name)
    for begin in range(0, out.size, _CHUNK):
        chunk = out[begin:begin + _CHUNK]
        chunk[...] = mean + deviation * generator.standard_normal(chunk.size, np.float32)
    return out.reshape(row.file_shape)


def _distribution(row: Row, gain: float) -> tuple[np.float32, np.float32]:
    """(mean, standard deviation). Token embeddings are drawn at 1, so that the tokens outweigh what the layers add to
    all positions alike; otherwise greedy text soon repeats one token."""
    if row.path.endswith("/scale"):
        return np.float32(1), np.float32(_SCALE)
    if row.path.endswith("/bias"):
        return np.float32(0), np.float32(_BIAS)
    if row.path.endswith("embed/weight") and not row.path.endswith("patch_embed/weight"):
        return np.float32(0), np.float32(1)
    if row.path.endswith(("/alpha", "/beta")):  # logarithms
        return np.float32(0), np.float32(0.3)
    gain *= next((share for part, share in _QUIETER.items() if part in row.path), 1)
    return np.float32(0), np.float32(gain / math.sqrt(math.prod(row.file_shape[1:])))


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
