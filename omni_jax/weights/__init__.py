"""Checkpoints: strict import from Hugging Face directories, export back, our own store, and the voices."""

from pathlib import Path

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights.export import match_params, params_tensors, save_huggingface
from omni_jax.weights.importer import Matched, load_huggingface, match, ordered_tensors
from omni_jax.weights.safetensors_files import Tensor, read_directory
from omni_jax.weights.speakers import Speaker, find_speakers, read_speakers, write_speakers
from omni_jax.weights.store import is_store, read_store, restore, save_store

__all__ = [
    "Matched", "Speaker", "Tensor", "find_speakers", "is_store", "load_huggingface", "load_params", "match",
    "match_params", "ordered_tensors", "params_tensors", "read_directory", "read_speakers", "read_store",
    "read_tensors", "restore", "save_huggingface", "save_store", "write_speakers",
]  # fmt: skip


def load_params(directory: str | Path, config: OmniConfig, abstract: dict, progress: bool = False) -> dict:
    """The parameters of the networks that are roots of `abstract`, from a directory of either kind, in the abstract
    tree's types and shardings."""
    return (restore if is_store(directory) else load_huggingface)(directory, config, abstract, progress)


def read_tensors(directory: str | Path, config: OmniConfig) -> dict[str, Tensor]:
    """All tensors of a directory of either kind, by their Hugging Face names; nothing is read but headers."""
    if not Path(directory).is_dir():
        raise OmniError(f"{directory}: is not a directory; give the directory of a checkpoint")
    return read_store(directory, config) if is_store(directory) else read_directory(directory)
