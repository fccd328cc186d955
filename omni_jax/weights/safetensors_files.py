"""Safetensors, read strictly and lazily and written as a stream.

Headers are checked against file sizes before anything is used, so a truncated or doubled file is an error at once and
not a wrong answer later. A tensor is mapped only while it is being copied from: the host holds one at a time.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from omni_jax.errors import OmniError

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own reader
_WRITE_BYTES = 1 << 26  # how much is handed to one write(): full disks show early, copies stay small


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is somewhere else: `load()` brings it (or a lazily read view of it) as a numpy array."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray] = dataclasses.field(compare=False, repr=False)
    file: str = ""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name, in file order; nothing but the header is read. Raises OmniError."""
    header, start, size = _read_header(path)
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        tensors[name] = _entry(path, name, entry, start)
        begin, stop = entry["data_offsets"]
        if begin != end or stop - begin != tensors[name].nbytes:
            raise OmniError(f"{path}: tensor {name} lies at bytes {begin}..{stop}, which does not fit its shape and "
                            "neighbours; the file is corrupt, fetch it again")
        end = stop
    if size != start + end:
        state = "is truncated" if size < start + end else "has bytes after its last tensor"
        raise OmniError(f"{path}: {state}: its header promises {start + end} bytes and the file has {size}; fetch it "
                        "again")
    return tensors


def read_directory(directory: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, `model.safetensors` or shards with their index. Raises OmniError for
    missing, truncated or corrupt shards, tensors listed but absent, present but unlisted, or present twice."""
    directory = Path(directory)
    single, index = directory / SINGLE, directory / INDEX
    if single.is_file() and index.is_file():
        raise OmniError(f"{directory}: holds both {SINGLE} and {INDEX}; remove the one that is out of date")
    if single.is_file():
        return read_file(single)
    if not index.is_file():
        raise OmniError(f"{directory}: has neither {SINGLE} nor {INDEX}; give the directory of a checkpoint whose "
                        "weights are safetensors")
    return _read_shards(directory, _read_index(index))


def write_file(path: Path, tensors: Iterable[Tensor], done: Callable[[int], object] = lambda count: None) -> None:
    """Writes one file, tensor by tensor. `done` is told the bytes written. OSError is left to the caller."""
    tensors = list(tensors)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape),
                               "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            _write_tensor(file, tensor, done)


def _write_tensor(file, tensor: Tensor, done: Callable[[int], object]) -> None:
    array = np.asarray(tensor.load())
    if array.shape != tensor.shape or array.dtype != tensor.dtype:
        raise AssertionError(f"{tensor.name}: {array.dtype}{array.shape} is not {tensor.dtype}{tensor.shape}")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for begin in range(0, flat.size, _WRITE_BYTES):
        file.write(flat[begin:begin + _WRITE_BYTES].data)
        done(min(_WRITE_BYTES, flat.size - begin))


def _read_header(path: Path) -> tuple[dict, int, int]:
    """(header, where the data starts, file size)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > _MAX_HEADER or size < 8 + length:
                raise OmniError(f"{path}: is truncated or not a safetensors file: its header does not fit in it; "
                                "fetch it again")
            header = json.loads(file.read(length), object_pairs_hook=partial(_once, path))
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror})") from None
    except OmniError:
        raise
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise OmniError(f"{path}: its header is not valid JSON; the file is corrupt, fetch it again")
    return header, 8 + length, size


def _once(path: Path, pairs: list[tuple[str, object]]) -> dict:
    """json keeps the last of equal keys silently; here they are an error."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise OmniError(f"{path}: names {twice} twice; keep one of the two")
    return found


def _offsets(path: Path, name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int and o >= 0 for o in offsets)):
        raise OmniError(f"{path}: the header's entry for {name} has no valid data_offsets; the file is corrupt")
    return tuple(offsets)


def _entry(path: Path, name: str, entry: dict, start: int) -> Tensor:
    dtype, shape = DTYPES.get(entry.get("dtype")), entry.get("shape")
    if dtype is None:
        raise OmniError(f"{path}: tensor {name} has the type {entry.get('dtype')!r}, which is not known here")
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        raise OmniError(f"{path}: the header's entry for {name} has no valid shape; the file is corrupt")
    load = partial(_map, path, start + entry["data_offsets"][0], dtype, tuple(shape))
    return Tensor(name, dtype, tuple(shape), load, path.name)


def _map(path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    try:
        return np.memmap(path, np.uint8, "r", offset, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
    except (OSError, ValueError) as error:
        raise OmniError(f"{path}: changed while it was being read ({error})") from None


def _read_index(path: Path) -> dict[str, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=partial(_once, path))
        shards = data["weight_map"]
        # A shard is a file of this directory: a path could lead anywhere.
        if not all(Path(shard).name == shard for shard in shards.values()):
            raise TypeError
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror})") from None
    except OmniError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise OmniError(f"{path}: is not a safetensors index (an object weight_map from tensor to file name)") from None
    return shards


def _read_shards(directory: Path, listed: dict[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(listed.values())):
        if not (directory / shard).is_file():
            raise OmniError(f"{directory / shard}: this shard is missing, and {INDEX} lists it; fetch it")
        for name, tensor in read_file(directory / shard).items():
            if name in tensors:
                raise OmniError(f"{directory}: tensor {name} is doubled: it is in {tensors[name].file} and in {shard}; "
                                "keep one of the two")
            tensors[name] = tensor
    for name, shard in listed.items():
        if name not in tensors or tensors[name].file != shard:
            raise OmniError(f"{directory / shard}: lacks tensor {name}, which {INDEX} places there; fetch the shard "
                            "again")
    for name, tensor in tensors.items():
        if name not in listed:
            raise OmniError(f"{directory / tensor.file}: holds tensor {name}, which {INDEX} does not list; "
                            "shards and index are not of one export")
    return tensors
