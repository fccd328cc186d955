"""The voices: `spk_dict.pt` (a pickle in a zip) read and written without torch, and without ever running what is in it.

A voice is the id of its first spoken token, a speaker vector and the mel of a reference recording.
"""

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from omni_jax.errors import OmniError
from omni_jax.weights.safetensors_files import Tensor, read_file, write_file

_STORAGES = {
    "FloatStorage": np.dtype(np.float32), "DoubleStorage": np.dtype(np.float64), "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16), "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
}  # fmt: skip
# What torch.save emits for dictionaries of tensors, strings and numbers. Everything that could build other objects,
# or ask for memory that the file does not hold, is left out.
_OPCODES = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE",
))  # fmt: skip
_MAX_PICKLE, _MAX_ELEMENTS = 1 << 20, 1 << 26  # a voice is some 50,000 numbers
_COND, _MELS = 192, 80


@dataclasses.dataclass(frozen=True, eq=False)
class Speaker:
    """`cond`: float32 [1, 192], the speaker vector; `ref_mel`: float32 [1, T, 80], 100 frames a second."""

    bos_token: int
    cond: np.ndarray
    ref_mel: np.ndarray


def read_speakers(path: str | Path) -> dict[str, Speaker]:
    """The voices of a `spk_dict.pt` or of our `speakers.safetensors`. Raises OmniError."""
    path = Path(path)
    content = _from_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise OmniError(f"{path}: must hold a dictionary of speakers by name")
    return {name: _speaker(path, name, fields) for name, fields in content.items()}


def find_speakers(directory: str | Path) -> dict[str, Speaker]:
    """The voices of a checkpoint directory of either kind; empty if it has none. Raises OmniError for a bad file."""
    paths = [Path(directory) / name for name in ("speakers.safetensors", "spk_dict.pt")]
    return next((read_speakers(path) for path in paths if path.is_file()), {})


def write_speakers(path: str | Path, speakers: Mapping[str, Speaker]) -> None:
    """Writes `speakers.safetensors`, or by its suffix a `spk_dict.pt` that `torch.load(weights_only=True)` reads."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return _write_pickle(path, speakers)
    arrays = {}
    for name, speaker in speakers.items():
        arrays[f"{name}.bos_token"] = np.asarray(speaker.bos_token, np.int64)
        arrays[f"{name}.cond"] = np.asarray(speaker.cond, np.float32)
        arrays[f"{name}.ref_mel"] = np.asarray(speaker.ref_mel, np.float32)
    return write_file(path, [Tensor(key, a.dtype, a.shape, lambda a=a: a) for key, a in arrays.items()])


def _from_safetensors(path: Path) -> dict[str, dict]:
    content: dict[str, dict] = {}
    for key, tensor in read_file(path).items():
        name, _, field = key.rpartition(".")
        content.setdefault(name, {})[field] = np.array(tensor.load())
    return content


def _speaker(path: Path, name: str, fields: object) -> Speaker:
    expected = {"bos_token": (), "cond": (1, _COND), "ref_mel": (1, None, _MELS)}
    if not isinstance(fields, dict) or not expected.keys() <= fields.keys():
        raise OmniError(f"{path}: speaker {name} must have {', '.join(expected)}")
    values = {}
    for field, shape in expected.items():
        value = fields[field]
        plain = value if isinstance(value, np.ndarray | int | float) else None
        array = np.asarray(plain)
        if field == "bos_token":
            array = array.reshape(()) if array.size == 1 else array
        fits = array.ndim == len(shape) and all(w in (None, n) for w, n in zip(shape, array.shape, strict=False))
        if not fits or array.dtype == object or not np.isfinite(array.astype(np.float64)).all():
            raise OmniError(f"{path}: speaker {name}'s {field} must be finite numbers of shape "
                            f"{['T' if n is None else n for n in shape]}, not {list(array.shape)}")
        values[field] = array
    return Speaker(int(values["bos_token"]), values["cond"].astype(np.float32), values["ref_mel"].astype(np.float32))


# Reading the pickle.


class _Storage:
    """Stands for a torch storage class: only its element type matters."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Reader(pickle._Unpickler):
    """Unpickles tensors, dictionaries and plain values. The Python version on purpose: its memo is a dictionary, where
    the C version's is an array whose size the file decides."""

    def __init__(self, data: bytes, storages: Mapping[str, bytes]):
        super().__init__(io.BytesIO(data))
        self._storages = storages

    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid):
        kind, storage, key, _, count = pid
        data = self._storages[key]
        if kind != "storage" or not 0 <= count * storage.dtype.itemsize <= len(data):
            raise ValueError(f"storage {key} is shorter than it says")
        return np.frombuffer(data, storage.dtype, count)


class _Refused(Exception):
    pass


def _rebuild(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: object) -> np.ndarray:
    """torch._utils._rebuild_tensor_v2, with the bounds checked."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 1 << 40 for n in numbers):
        raise ValueError("a tensor has impossible sizes")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) > _MAX_ELEMENTS or (math.prod(size) and last >= storage.size):
        raise ValueError("a tensor is larger than its storage")
    if not math.prod(size):
        return np.zeros(size, storage.dtype)
    strides = [s * storage.dtype.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False).copy()


def _read_pickle(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            data, storages = _entries(path, archive)
        for opcode, _, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise _Refused(f"pickle instruction {opcode.name}")
        return _Reader(data, storages).load()
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror})") from None
    except _Refused as error:
        raise OmniError(f"{path}: contains code or objects that are not tensors ({error}); refused, fetch the file "
                        "from its publisher") from None
    except OmniError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise OmniError(f"{path}: is damaged, or not a file that torch.save wrote ({type(error).__name__}: "
                        f"{str(error)[:100]}); fetch it again") from None


def _entries(path: Path, archive: zipfile.ZipFile) -> tuple[bytes, dict[str, bytes]]:
    """(the pickle, {storage key: bytes}). The archive's root directory may have any name."""
    pickles = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise OmniError(f"{path}: has {len(pickles)} data.pkl where torch.save writes one; fetch it again")
    root = pickles[0].filename[:-len("data.pkl")]
    byteorder = [info for info in archive.infolist() if info.filename == root + "byteorder"]
    wanted = [info for info in archive.infolist() if info.filename.startswith(root + "data/")]
    for info in (*pickles, *byteorder, *wanted):
        # torch.save never compresses; so no entry can be larger than the file itself.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
            raise OmniError(f"{path}: its entry {info.filename} is compressed or claims more bytes than the file has; "
                            "refused, fetch the file from its publisher")
    if pickles[0].file_size > _MAX_PICKLE:
        raise OmniError(f"{path}: its pickle of {pickles[0].file_size} bytes is too large for speakers; refused")
    if byteorder and archive.read(byteorder[0]) != b"little":
        raise OmniError(f"{path}: was written on a big-endian machine; save it again on a little-endian one")
    return archive.read(pickles[0]), {info.filename[len(root + "data/"):]: archive.read(info) for info in wanted}


# Writing the pickle: the few instructions (protocol 2) that torch.save would emit, by hand.


def _write_pickle(path: Path, speakers: Mapping[str, Speaker]) -> None:
    storages: list[bytes] = []
    content = {name: {"bos_token": int(speaker.bos_token), "cond": speaker.cond, "ref_mel": speaker.ref_mel}
               for name, speaker in speakers.items()}
    data = b"\x80\x02" + _emit(content, storages) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        entries = {"data.pkl": data, "byteorder": b"little", "version": b"3\n"}
        entries |= {f"data/{key}": storage for key, storage in enumerate(storages)}
        for name, payload in entries.items():
            # A fixed date: the same voices give the same file.
            archive.writestr(zipfile.ZipInfo(f"spk_dict/{name}", (1980, 1, 1, 0, 0, 0)), payload)


def _emit(value: object, storages: list[bytes]) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_emit(key, storages) + _emit(item, storages) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(_emit(item, storages) for item in value) + b"t"
    return _emit_tensor(np.ascontiguousarray(value, np.float32), storages)


def _emit_tensor(array: np.ndarray, storages: list[bytes]) -> bytes:
    key, strides = str(len(storages)), tuple(s // array.itemsize for s in array.strides)
    storages.append(array.tobytes())
    storage = (b"(" + _emit("storage", storages) + b"ctorch\nFloatStorage\n" + _emit(key, storages)
               + _emit("cpu", storages) + _emit(array.size, storages) + b"tQ")
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _emit(0, storages) + _emit(array.shape, storages)
            + _emit(strides, storages) + b"\x89" + b"ccollections\nOrderedDict\n)R" + b"tR")
