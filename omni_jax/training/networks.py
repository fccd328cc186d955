"""The networks that a run needs: those of the checkpoint, and those that only training knows."""

import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import CodecConfig, CodecEncoderConfig, OmniConfig
from omni_jax.errors import require
from omni_jax.inference.networks import NETWORKS, abstract_networks
from omni_jax.models.codec_encoder import CodecEncoder
from omni_jax.models.discriminators import Discriminators
from omni_jax.models.ecapa import SpeakerEncoder
from omni_jax.models.talker import Talker
from omni_jax.training.config import TrainConfig
from omni_jax.training.step import Params, Plan
from omni_jax.weights import beside

COPIES = {"reference": "talker"}  # frozen, as the other was before the first step


def training_networks(config: OmniConfig, run: TrainConfig, mesh: Mesh,
                      names: Sequence[str]) -> dict[str, tuple[nnx.GraphDef, dict]]:
    """{name: (graphdef, abstract params)} of the networks of these names that can be."""
    # Stacked on every platform: unlike a decode step's, these passes are long beside the copy of a layer's weights.
    dtype = jnp.dtype(run.dtype)
    found = abstract_networks(config, mesh, dtype, scanned=True, names=[name for name in names if name in NETWORKS])
    for name in set(names) - NETWORKS.keys():
        network, part = _added(name, config, run)
        if part is not None:
            found[name] = sharding.abstract(network, part, mesh, dtype)
    return found


def _added(name: str, config: OmniConfig, run: TrainConfig) -> tuple[Any, Any]:
    """A network's class and configuration (None: there can be none)."""
    dit = config.token2wav_config and config.token2wav_config.dit_config
    return {"reference": (functools.partial(Talker, scanned=True), config.talker_config),
            "discriminators": (Discriminators, run.speech.discriminators),
            "speaker_encoder": (SpeakerEncoder, dit),
            "codec_encoder": (CodecEncoder, dit and codec_config(config, run).encoder)}[name]


def apart(abstract: Mapping[str, Any]) -> tuple[Params, Params]:
    """(the leaves that a checkpoint has, those that it has not) of {path: leaf}."""
    known = {path: leaf for path, leaf in abstract.items() if path.split("/")[0] in NETWORKS}
    return known, {path: leaf for path, leaf in abstract.items() if path not in known}


def load_added(added: Mapping[str, jax.ShapeDtypeStruct], plan: Plan, loaded: Mapping[str, jax.Array]) -> Params:
    """The arrays of what a checkpoint has not: copies of what is `loaded`, what lies beside the checkpoint, or else
    weights drawn from the run's seed."""
    found: Params = {}
    for root in sorted({path.split("/")[0] for path in added}):
        own = {path: leaf for path, leaf in added.items() if path.startswith(f"{root}/")}
        if root in COPIES:
            found |= {path: _copy(loaded[COPIES[root] + path.removeprefix(root)], leaf) for path, leaf in own.items()}
        elif beside.exists(plan.run.model, root):
            found |= beside.load(plan.run.model, root, own)
        else:
            found |= _drawn(root, plan, own)
    return found


def _copy(array: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """One of its own: what learns is donated to each step."""
    return jax.device_put(jnp.array(array, leaf.dtype, copy=True), leaf.sharding)


def _drawn(root: str, plan: Plan, own: Params) -> Params:
    network, part = _added(root, plan.config, plan.run)

    def draw(key):
        with nnx.use_eager_sharding(False):  # as sharding.abstract
            state = nnx.to_flat_state(nnx.state(network(part, nnx.Rngs(key), jnp.float32)))
        drawn = {"/".join(map(str, (root, *path))): leaf.get_value() for path, leaf in state}
        return {path: drawn[path].astype(leaf.dtype) for path, leaf in own.items()}

    key = jax.random.fold_in(jax.random.key(plan.run.seed), zlib.crc32(root.encode()))
    return jax.jit(draw, out_shardings={path: leaf.sharding for path, leaf in own.items()})(key)


def codec_config(config: OmniConfig, run: TrainConfig) -> CodecConfig:
    """That of the codec encoder beside the run's checkpoint, or of a new one. Raises OmniError."""
    if beside.exists(run.model, beside.CODEC):
        found = beside.load_codec_config(run.model)
        require(found.mel == run.speech.mel, "speech.mel",
                f"must be that of {beside.codec_file(run.model)}: {found.mel}")
        return found
    dit, speech = config.token2wav_config.dit_config, run.speech
    width = speech.encoder_width
    encoder = CodecEncoderConfig(
        hidden_size=width, num_hidden_layers=speech.encoder_layers, num_attention_heads=width // 64, head_dim=64,
        intermediate_size=3 * width, mel_dim=dit.mel_dim, emb_dim=dit.emb_dim, block_size=dit.block_size,
        repeats=dit.repeats, look_back=1, look_ahead=speech.encoder_ahead, rope_theta=10_000.0, rms_norm_eps=1e-6)
    return CodecConfig(encoder, speech.mel)
