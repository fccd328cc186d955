"""Small checkpoints to break, and the parameter trees that they load into."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.inference.networks import abstract_networks
from omni_jax.weights import Tensor, save_huggingface
from omni_jax.weights.random_init import random_speakers, random_tensors
from omni_jax.weights.safetensors_files import INDEX, read_directory, write_file
from tests.tiny import config as tiny_config

SHARD = 60_000  # bytes: several shards even for a tiny model
NESTED = {"model.": "model.language_model.", "audio_tower.": "model.audio_tower.", "visual.": "model.visual."}


def omni_config(kind: str = "7b", whole: bool = True, tie_word_embeddings: bool = False, speech: bool = False,
                **text) -> OmniConfig:
    data = tiny_config(kind, speech)
    data["thinker_config"]["tie_word_embeddings"] = tie_word_embeddings
    data["thinker_config"]["text_config"] |= text
    return OmniConfig.from_json(data if whole else data["thinker_config"])


def write_checkpoint(directory: Path, config: OmniConfig, dtype: str = "float32",
                     shard: int = SHARD) -> Path:
    tensors = random_tensors(config, 7, dtype)
    save_huggingface(directory, config, tensors, random_speakers(config), max_shard_size=shard)
    return directory


def rewrite(directory: Path, change, shard_of=lambda name: "model.safetensors") -> Path:
    """Writes the tensors anew after `change(dict of arrays)`, in one file or in the shards that `shard_of` names."""
    arrays = {name: np.array(tensor.load()) for name, tensor in read_directory(directory).items()}
    change(arrays)
    for path in directory.glob("model*.safetensors*"):
        path.unlink()
    shards: dict[str, list[Tensor]] = {}
    for name, array in arrays.items():
        tensor = Tensor(name, array.dtype, array.shape, lambda array=array: array)
        shards.setdefault(shard_of(name), []).append(tensor)
    for shard, tensors in shards.items():
        write_file(directory / shard, tensors)
    if set(shards) != {"model.safetensors"}:
        places = {tensor.name: shard for shard, tensors in shards.items() for tensor in tensors}
        (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return directory


def nested_name(name: str, prefix: str = "thinker.") -> str:
    """A tensor's name as transformers 5 nests those of the Thinker."""
    if not name.startswith(prefix):
        return name
    plain = name[len(prefix):]
    start = next((start for start in NESTED if plain.startswith(start)), None)
    return prefix + NESTED[start] + plain[len(start):] if start else name


def abstract(config: OmniConfig, mesh: Mesh | str | None = "model=1", dtype="float32", scanned: bool = True) -> dict:
    """The tree of all networks that `config` has."""
    networks = abstract_networks(config, sharding.make_mesh(mesh), dtype, scanned)
    return {name: tree for name, (_, tree) in networks.items()}


def assert_trees_equal(left: dict, right: dict) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def is_one_sentence(message: str) -> bool:
    return "\n" not in message and ". " not in message.strip(".") and len(message) < 600
