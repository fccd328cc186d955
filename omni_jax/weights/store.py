"""Our own checkpoint directory: one small orbax checkpoint per block of the networks.

    config.json           as Hugging Face has it
    params.json           every tensor's group, type and shape: what there must be, so checks come before long work
    params/GROUP/         orbax; e.g. thinker.decoder.layers.07, talker.embed
    speakers.safetensors  the voices, if any; beside it the tokenizer and preprocessor files

A layer per group, because orbax needs two to three times the memory of what it is handed, and the stacked leaves of
the 7B hold 3.8 GB each. So both ways stream: a group is read or written and forgotten.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights.files import copy_companions, progress_bar, require_space, whole_directory
from omni_jax.weights.importer import Matched
from omni_jax.weights.names import Row, check_tree, leaves, nest, rows
from omni_jax.weights.safetensors_files import CODES, DTYPES, Tensor
from omni_jax.weights.speakers import Speaker, write_speakers

INDEX = "params.json"
_FORMAT, _VERSION = "omni_jax", 2
_OURS = re.compile(rb'"format"\s*:\s*"omni_jax"')


@dataclasses.dataclass(frozen=True)
class Entry:
    """One stored tensor. `path` is its place in the group's tree; `name` its Hugging Face name."""

    group: str
    path: str
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


def is_store(directory: str | Path) -> bool:
    """Whether the directory is one of ours (as opposed to a Hugging Face checkpoint)."""
    path = Path(directory) / INDEX
    # Searched, not parsed: a damaged index of ours is to be told as such. Other programs have a params.json, too.
    return path.is_file() and bool(_OURS.search(path.read_bytes()))


def save_store(directory: str | Path, config: OmniConfig, matched: Matched,
               speakers: Mapping[str, Speaker] | None = None, companions: str | Path | None = None,
               progress: bool = False) -> None:
    """Writes a store, group by group, whole or not at all.

    Args:
      matched: what `importer.match` gave (or `export.match_params`); types are kept as they are.
      companions: a directory whose tokenizer and preprocessor files are copied.
    Raises: OmniError if the directory exists or cannot be written.
    """
    planned = list(_plan(matched))
    total = sum(tensor.nbytes for _, tensor in planned)
    with whole_directory(directory, total) as partial, progress_bar(total, "storing", progress) as bar:
        (partial / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")
        for group, members in _by_group(planned).items():
            # A tensor without elements lives in the index alone: orbax refuses it.
            arrays = {entry.path: _ours(entry, tensor) for entry, tensor in members if tensor.nbytes}
            require_space(partial, sum(array.nbytes for array in arrays.values()))
            if arrays:
                _save_group(partial / "params" / group, nest(arrays), Path(directory))
            bar.update(sum(tensor.nbytes for _, tensor in members))
        if companions is not None:
            copy_companions(companions, partial)
        if speakers:
            write_speakers(partial / "speakers.safetensors", speakers)
        _write_index(partial / INDEX, [entry for entry, _ in planned])


def restore(directory: str | Path, config: OmniConfig, abstract: dict, progress: bool = False) -> dict:
    """The parameters of the networks that are roots of `abstract`, from a store, each group straight to its shards.

    Stacked leaves are allocated once and filled layer by layer in place, so that beside the result there is never
    more than one layer. Raises OmniError for a damaged or incomplete store, or one of another model.
    """
    check_tree(abstract, config)
    directory, table, wanted = Path(directory), rows(config, abstract), dict(leaves(abstract))
    _check_index(directory, read_index(directory), config)
    params: dict[str, jax.Array] = {}
    with progress_bar(sum(math.prod(row.shape) for row in table), "restoring", progress, " weights") as bar:
        for groups in _restore_order(table):
            stacked = _restore_section(directory, groups, wanted, bar)
            params.update(stacked)
    return nest({path: params[path] for path in wanted})


def read_store(directory: str | Path, config: OmniConfig) -> dict[str, Tensor]:
    """All tensors of a store under their Hugging Face names and in those shapes, to be loaded group by group."""
    directory, shapes = Path(directory), {}
    entries = read_index(directory)
    _check_index(directory, entries, config)
    for row in rows(config):
        shapes |= dict.fromkeys(row.names(), row.file_shape)

    @functools.lru_cache(maxsize=1)
    def load_group(group: str) -> dict[str, np.ndarray]:
        members = {entry.path: entry for entry in entries if entry.group == group and math.prod(entry.shape)}
        targets = {path: _orbax().RestoreArgs(restore_type=np.ndarray) for path in members}
        return _restore_group(directory, group, members, targets)

    def load(entry: Entry, shape: tuple[int, ...]) -> np.ndarray:
        if not math.prod(shape):
            return np.zeros(shape, entry.dtype)
        return load_group(entry.group)[entry.path].reshape(shape)

    tensors = {}
    for entry in entries:
        shape = shapes.get(entry.name, entry.shape)
        tensors[entry.name] = Tensor(entry.name, entry.dtype, shape, functools.partial(load, entry, shape), entry.group)
    return tensors


def read_index(directory: str | Path) -> list[Entry]:
    """The entries of `params.json`, after checking that their groups are there. Raises OmniError."""
    path = Path(directory) / INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if (data["format"], data["version"]) != (_FORMAT, _VERSION):
            raise OmniError(f"{path}: is of format {data['format']} {data['version']}, and this is {_FORMAT} "
                            f"{_VERSION}; convert the checkpoint again")
        entries = [Entry(e["group"], e["path"], e["name"], DTYPES[e["dtype"]], tuple(map(int, e["shape"])))
                   for e in data["tensors"]]
    except OSError as error:
        raise OmniError(f"{path}: cannot be read ({error.strerror})") from None
    except OmniError:
        raise
    except (ValueError, KeyError, TypeError):
        raise OmniError(f"{path}: is not a valid index of a converted checkpoint; convert it again") from None
    for entry in entries:
        if Path(entry.group).name != entry.group:
            raise OmniError(f"{path}: the group {entry.group!r} leads out of the directory; refused")
        if math.prod(entry.shape) and not (Path(directory) / "params" / entry.group / "_METADATA").is_file():
            raise OmniError(f"{directory}/params/{entry.group}: is missing or incomplete, and {INDEX} lists it; "
                            "convert the checkpoint again")
    return entries


def _plan(matched: Matched) -> Iterator[tuple[Entry, Tensor]]:
    for row, layers in matched:
        for layer, (name, tensor) in enumerate(zip(row.names(), layers, strict=True)):
            group, path = _place(row, layer)
            yield Entry(group, path, name, tensor.dtype, row.layer_shape), tensor


def _place(row: Row, layer: int) -> tuple[str, str]:
    """(group, path inside the group) of one layer of a row."""
    if row.layers is None:
        parent, _, leaf = row.path.rpartition("/")
        return parent.replace("/", "."), leaf
    parent, _, inner = row.path.partition("/layers/")
    return f"{parent.replace('/', '.')}.layers.{layer:02d}", inner


def _by_group(planned: list[tuple[Entry, Tensor]]) -> dict[str, list[tuple[Entry, Tensor]]]:
    groups: dict[str, list] = {}
    for entry, tensor in planned:
        groups.setdefault(entry.group, []).append((entry, tensor))
    return groups


def _ours(entry: Entry, tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.load()).reshape(entry.shape)


def _write_index(path: Path, entries: Iterable[Entry]) -> None:
    tensors = [{"group": e.group, "path": e.path, "name": e.name, "dtype": CODES[e.dtype], "shape": list(e.shape)}
               for e in entries]
    data = {"format": _FORMAT, "version": _VERSION, "tensors": tensors}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _check_index(directory: Path, entries: list[Entry], config: OmniConfig) -> None:
    """The index against the name table: an incomplete store or another model's config is told before any reading."""
    stored = {entry.name: entry for entry in entries}
    for row in rows(config):
        for layer, name in enumerate(row.names()):
            entry = stored.pop(name, None)
            if entry is None:
                raise OmniError(f"{directory / INDEX}: tensor {name} is missing; convert the checkpoint again, or "
                                "correct config.json")
            if (entry.group, entry.path, entry.shape) != (*_place(row, layer), row.layer_shape):
                raise OmniError(f"{directory / INDEX}: tensor {entry.name} is misshaped: {list(entry.shape)} in the "
                                f"store, {list(row.layer_shape)} by config.json ({row.fields()})")
    if stored:
        raise OmniError(f"{directory / INDEX}: tensor {next(iter(stored))} is unknown to config.json's model "
                        f"({len(stored)} such); convert the checkpoint again, or correct config.json")


def _restore_order(table: list[Row]) -> Iterator[list[Row]]:
    """Rows that share their groups, together: all rows of one stack of layers, or of one unstacked block."""
    groups: dict[tuple, list[Row]] = {}
    for row in table:
        groups.setdefault((_place(row, 0)[0], row.layers), []).append(row)
    yield from groups.values()


def _restore_section(directory: Path, section: list[Row], wanted: dict, bar) -> dict[str, jax.Array]:
    layers, paths = section[0].layers, [row.leaf_paths(wanted) for row in section]
    stacked = layers is not None and paths[0] == [section[0].path]
    targets = {row.path: wanted[row.path] for row in section} if stacked else {}
    result = _allocate(targets) if stacked else {}
    for layer in range(layers or 1):
        group, members, restore_args = _layer_request(section, layer, wanted)
        arrays = _restore_group(directory, group, members, restore_args)
        arrays = {own[0 if stacked else layer]: arrays[_place(row, layer)[1]]
                  for row, own in zip(section, paths, strict=True)}
        result = _filler(_key(targets))(result, arrays, layer) if stacked else result | arrays
        bar.update(sum(math.prod(row.layer_shape) for row in section))
    return result


def _layer_request(section: list[Row], layer: int, wanted: dict):
    """(group, {path: wanted abstract layer}, {path: restore arguments}) of one layer."""
    members, arguments = {}, {}
    for row in section:
        group, path = _place(row, layer)
        own = row.leaf_paths(wanted)
        leaf = wanted[own[min(layer, len(own) - 1)]]
        sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
        if len(leaf.shape) > len(row.layer_shape) and isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
        members[path] = jax.ShapeDtypeStruct(row.layer_shape, leaf.dtype)
        arguments[path] = _orbax().ArrayRestoreArgs(sharding=sharding, global_shape=row.layer_shape,
                                                    dtype=leaf.dtype)
    return group, members, arguments


def _key(targets: dict) -> tuple:
    return tuple((path, leaf.sharding) for path, leaf in targets.items())


def _allocate(targets: dict) -> dict[str, jax.Array]:
    shardings = {path: leaf.sharding for path, leaf in targets.items()}
    shapes = {path: (leaf.shape, leaf.dtype) for path, leaf in targets.items()}
    return jax.jit(lambda: {path: jnp.zeros(*s) for path, s in shapes.items()}, out_shardings=shardings)()


@functools.lru_cache(maxsize=8)
def _filler(key: tuple) -> Callable:
    """A jitted `stacked[layer] = arrays`, in place."""

    def fill(stacked, arrays, layer):
        return {path: jax.lax.dynamic_update_index_in_dim(stacked[path], arrays[path], layer, 0) for path in stacked}

    return jax.jit(fill, donate_argnums=0, out_shardings=dict(key))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """orbax logs whole tracebacks of what it also raises; the raised one is enough."""
    _mute_late_callbacks()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@functools.cache
def _mute_late_callbacks() -> None:
    """After a failure, tensorstore's other operations end when orbax's event loop is closed already, and Python would
    print a traceback for each of them beside the one error that matters."""
    default = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            default(unraisable)

    sys.unraisablehook = hook


def _orbax() -> Any:
    """Imported late: it takes a quarter of the package's start, and Hugging Face directories need none of it."""
    import orbax.checkpoint

    return orbax.checkpoint


def _checkpointer() -> Any:
    # Weights hardly compress (22 % in bfloat16), and doing so takes six times as long to write and three to read.
    return _orbax().Checkpointer(_orbax().PyTreeCheckpointHandler(use_compression=False))


def _save_group(path: Path, tree: dict, directory: Path) -> None:
    try:
        with _quiet():
            _checkpointer().save(path.absolute(), tree)
    except Exception as error:  # tensorstore raises ValueError with the cause in its text
        told = "no space is left on the disk" if "No space left" in str(error) else _first_line(error)
        raise OmniError(f"{directory}: could not be written ({told}); nothing was kept") from None


def _restore_group(directory: Path, group: str, members: Mapping, arguments: dict) -> dict:
    """{path: array} of one group; shapes are compared again, since orbax pads and cuts silently."""
    path = directory / "params" / group
    try:
        with _quiet():
            tree = _checkpointer().restore(path.absolute(), item=nest(dict(members)), restore_args=nest(arguments))
    except Exception as error:
        raise OmniError(f"{path}: is damaged ({_first_line(error)}); convert the checkpoint again") from None
    arrays = dict(leaves(tree))
    for name, member in members.items():
        if name not in arrays or arrays[name].shape != member.shape or arrays[name].dtype != member.dtype:
            raise OmniError(f"{path}: tensor {name} is not of the shape and type in {INDEX}; convert the checkpoint "
                            "again")
    return arrays


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
