"""Parts of the Thinker from the models that it grew out of: the language model from Qwen2.5, the vision tower from
Qwen2.5-VL, the audio tower from Whisper-large-v3 (paper section 3).

What has no counterpart there stays as it is in the checkpoint that the parts are laid over: the projection of the audio
tower, and the merger of the vision tower where it leads to another width. Where the vocabularies differ in size, the
rows beyond the smaller one stay; tokens that both have are the same, but for a few that the Omni gave another meaning.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omni_jax.config import FIXED, OmniConfig, read_json_object
from omni_jax.errors import OmniError, require
from omni_jax.weights.importer import Matched, check_type, listed, place_row
from omni_jax.weights.names import Row, canonical
from omni_jax.weights.safetensors_files import Tensor, read_directory

# Our names of tensors (patterns), and theirs.
_RENAMED = ((r"^audio_tower\.ln_post\.", "model.encoder.layer_norm."), (r"^audio_tower\.", "model.encoder."),
            (r"(^visual\..*\.attn)\.[qkv]\.", r"\1.qkv."))
_SPELLINGS = {"in_channels": "in_chans"}
_FUSED = re.compile(r"\.attn\.([qkv])\.")
_MERGER, _EMBED = "thinker/vision/merger/", "model.embed_tokens.weight"


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the Thinker and the model that has it, too.

    model, kind: its name, and model_type of its config.json. section: of our thinker_config; theirs: of that
    config.json ("" is its top). fields: what must be equal there. of_part: a tensor's name there in one scheme, or None
    if the tensor is not of the part. stays: paths that have no counterpart. unread: tensors that nothing here needs.
    """

    model: str
    kind: str
    section: str
    theirs: str
    fields: tuple[str, ...]
    of_part: Callable[[str], str | None]
    stays: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def _of_vision(name: str) -> str | None:
    name = canonical(name)
    return name if name.startswith("visual.") else None


def _of_audio(name: str) -> str | None:
    name = name if name.startswith("model.") else f"model.{name}"
    return name if name.startswith("model.encoder.") else None


PARTS = {
    "language": Part("Qwen2.5", "qwen2", "text_config", "",
                     ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                      "num_key_value_heads", "rms_norm_eps", "rope_theta"), lambda name: name),
    "vision": Part("Qwen2.5-VL", "qwen2_5_vl", "vision_config", "vision_config",
                   ("depth", "hidden_size", "num_heads", "intermediate_size", "patch_size", "spatial_merge_size",
                    "temporal_patch_size", "in_channels", "window_size", "fullatt_block_indexes"), _of_vision),
    "audio": Part("Whisper-large-v3", "whisper", "audio_config", "",
                  ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins"),
                  _of_audio, ("thinker/audio/proj/", "thinker/audio/bos_eos/"),
                  ("model.encoder.embed_positions.weight",)),  # sinusoids, which are computed here
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Foreign:
    """What other models give. `rows`: their tensors under our names and in our shapes; `origins`: the directory that
    each path (of stacked layers) comes from; `notes`: sentences on what stays as it was."""

    rows: Matched
    origins: dict[str, Path]
    notes: tuple[str, ...]


def find_foreign(config: OmniConfig, sources: Mapping[str, str | Path | None], matched: Matched) -> Foreign:
    """Checks the directories of other models; no weight is read.

    Args:
      sources: directories by part, "language", "vision" and "audio"; None is none.
      matched: the tensors of the checkpoint that they are laid over, as `match` gave them.
    Raises: OmniError for a model of other sizes, and for missing, unknown or misshaped tensors of its part.
    """
    rows, origins, notes = [], {}, []
    for name, directory in sources.items():
        if directory is not None:
            found, told = _find(PARTS[name], config, Path(directory), matched)
            rows, notes = rows + found, notes + told
            origins |= {row.path: Path(directory) for row, _ in found}
    return Foreign(rows, origins, tuple(notes))


def replaced(matched: Matched, foreign: Foreign) -> Matched:
    """A checkpoint's tensors with those of other models in their places, in the checkpoint's types."""
    new = {row.path: tensors for row, tensors in foreign.rows}
    return [(row, [_as_type(tensor, own.dtype) for tensor, own in zip(new.get(row.path, owns), owns, strict=True)])
            for row, owns in matched]


def overlay(params: dict[str, jax.Array], foreign: Foreign) -> None:
    """Puts other models' weights into {path: array}, in place, in the types and shardings of the arrays that they
    replace. An old leaf is dropped before the new one is read."""
    for row, tensors in foreign.rows:
        old = {path: params.pop(path) for path in row.leaf_paths(params)}
        wanted = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
                  for path, leaf in old.items()}
        del old
        params |= place_row(row, tensors, wanted)


def _find(part: Part, config: OmniConfig, directory: Path, matched: Matched) -> tuple[Matched, list[str]]:
    """(rows, notes) of one part."""
    ours, data = getattr(config.thinker_config, part.section), _read_config(part, directory)
    _check_config(part, ours, data, directory)
    found, tied = _read(part, directory), bool(data.get("tie_word_embeddings"))
    require("lm_head.weight" not in found or tied or not config.thinker_config.tie_word_embeddings, str(directory),
            "has a head of its own, and the checkpoint's is tied to its embeddings; give a model whose is tied, too")
    own = [(row, owns) for row, owns in matched if row.section.config == f"thinker_config.{part.section}"]
    names = {row.path: [_their_name(name.removeprefix(config.thinker_prefix), tied) for name in row.names()]
             for row, _ in own}
    known = {*part.unread, *(["lm_head.weight"] if tied else ())}.union(*names.values())
    stays, notes = _staying(part, ours, data, directory)
    taken = [(row, owns) for row, owns in own if not row.path.startswith(stays)]
    _check_names(found, [name for row, _ in taken for name in names[row.path]], known, directory)
    rows = [(row, [_tensor(row, found[name], tensor, directory)
                   for name, tensor in zip(names[row.path], owns, strict=True)]) for row, owns in taken]
    return rows, notes + _vocabulary_note(ours, found, directory)


def _staying(part: Part, ours: Any, data: Mapping[str, Any], directory: Path) -> tuple[tuple[str, ...], list[str]]:
    """(starts of the paths that stay as they are, notes on it)."""
    width = data.get("out_hidden_size")
    if part.section != "vision_config" or width == ours.out_hidden_size:
        return part.stays, []
    return (_MERGER,), [f"{directory}: its merger leads to vectors of {width} and not of {ours.out_hidden_size}, so "
                        "the checkpoint's merger stays"]


def _vocabulary_note(ours: Any, found: Mapping[str, Tensor], directory: Path) -> list[str]:
    if _EMBED not in found or found[_EMBED].shape[0] == ours.vocab_size:
        return []
    rows = found[_EMBED].shape[0]
    what = "the checkpoint's rows beyond them stay" if rows < ours.vocab_size else "those beyond are left out"
    return [f"{directory}: its vocabulary has {rows} rows and the checkpoint's {ours.vocab_size}; {what}"]


def _their_name(name: str, tied: bool) -> str:
    """What a tensor of the Thinker (its name without `thinker.`) is called in the model that it comes from."""
    if name == "lm_head.weight" and tied:
        return _EMBED
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _read_config(part: Part, directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    data = read_json_object(path, f"give a directory of {part.model}")
    require(data.get("model_type") == part.kind, str(path),
            f"model_type is {data.get('model_type')!r} and not {part.kind!r}; give a directory of {part.model}")
    inner = data.get(part.theirs) if part.theirs else data
    require(isinstance(inner, dict), str(path), f"{part.theirs} is missing; give a directory of {part.model}")
    return inner


def _check_config(part: Part, ours: Any, data: Mapping[str, Any], directory: Path) -> None:
    path = directory / "config.json"
    for field in part.fields:
        value, expected = _field(data, field), getattr(ours, field)
        value = tuple(value) if isinstance(value, list) else value
        require(value == expected, str(path), f"{field} is {value} and the checkpoint's {part.section} has {expected}; "
                f"give a {part.model} of its sizes")
    for field, expected in FIXED.items():
        require(data.get(field, expected) == expected, str(path),
                f"{field} is {data.get(field)!r}, and only {expected!r} is supported")


def _field(data: Mapping[str, Any], field: str) -> Any:
    if field == "rope_theta" and field not in data:
        data = data.get("rope_parameters") or {}
    return data.get(field, data.get(_SPELLINGS.get(field, field)))


def _read(part: Part, directory: Path) -> dict[str, Tensor]:
    """{name in one scheme: tensor} of the part."""
    found: dict[str, Tensor] = {}
    for tensor in read_directory(directory).values():
        if (name := part.of_part(tensor.name)) is not None:
            require(name not in found, str(directory), f"tensor {tensor.name} is there by another name, too; keep one")
            found[name] = tensor
    return found


def _check_names(found: Mapping[str, Tensor], needed: Iterable[str], known: set[str], directory: Path) -> None:
    missing = [name for name in dict.fromkeys(needed) if name not in found]
    unknown = [tensor.name for name, tensor in found.items() if name not in known]
    told = [listed(names, what) for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
    require(not told, str(directory), f"{', and '.join(told)}; it is not the model that its config.json describes")


def _tensor(row: Row, theirs: Tensor, own: Tensor, directory: Path) -> Tensor:
    """One layer's tensor under our name and in our shape."""
    first, *others = row.file_shape
    fused, table = _FUSED.search(row.name), row.layout[0] == "V"
    expected = ("any" if table else 3 * first if fused else first, *others)
    if theirs.shape[1:] != tuple(others) or not (table or theirs.shape[:1] == expected[:1]):
        raise OmniError(f"{directory}: tensor {theirs.name} is misshaped: {list(theirs.shape)} in the file, "
                        f"{list(expected)} by config.json; the two are not of one model")
    check_type(theirs, directory)
    load = theirs.load
    if fused:
        load = functools.partial(_third, theirs, "qkv".index(fused[1]))
    if table and theirs.shape != own.shape:
        return dataclasses.replace(own, load=functools.partial(_joined, theirs, own))
    return Tensor(own.name, theirs.dtype, own.shape, load, theirs.file)


def _third(fused: Tensor, index: int) -> np.ndarray:
    rows = fused.shape[0] // 3
    return fused.load()[index * rows:(index + 1) * rows]


def _joined(theirs: Tensor, own: Tensor) -> np.ndarray:
    """A table of our size: their rows, then our own."""
    table, rows = np.array(own.load()), min(theirs.shape[0], own.shape[0])
    table[:rows] = theirs.load()[:rows]
    return table


def _as_type(tensor: Tensor, dtype: np.dtype) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    return dataclasses.replace(tensor, dtype=dtype, load=lambda: np.asarray(tensor.load()).astype(dtype))
