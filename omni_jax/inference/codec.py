"""Sound to codes and to speakers, by the networks that lie beside a checkpoint.

    codec = Codec.load("Qwen2.5-Omni-7B")
    codes = codec.encode(load_speech("hello.wav"))           # int32 [n], 50 a second
    ada = codec.speaker(load_speech("ada.wav"), bos_token)   # one of weights.write_speakers
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_jax import sharding
from omni_jax.config import CodecConfig, MelConfig, OmniConfig, Token2WavConfig
from omni_jax.data.speech import check_speech
from omni_jax.errors import require
from omni_jax.models.codec_encoder import CodecEncoder, in_windows, nearest
from omni_jax.models.ecapa import SpeakerEncoder
from omni_jax.models.mel import log_mel
from omni_jax.weights import Speaker, beside, match, read_tensors
from omni_jax.weights.names import leaves, nest

PIECES = 192, 384, 768  # mel frames that are computed at a time: few shapes, and little padding for short recordings
TABLE = "token2wav/dit/codec_embed/weight"  # [rows, E]: the first V are sounds, the others marks


@dataclasses.dataclass(frozen=True)
class Codec:
    """config: Token2Wav's; sizes: the codec encoder's, if there is one. networks: (graphdef, params) of those that are
    there, by name. table: float32 [V, E], the DiT's vectors of sounds."""

    directory: Path
    config: Token2WavConfig
    sizes: CodecConfig | None
    mesh: Mesh
    networks: dict[str, tuple[nnx.GraphDef, dict]]
    table: jax.Array

    @classmethod
    def load(cls, directory: str | os.PathLike, mesh: Any = "", needs: Sequence[str] = ()) -> "Codec":
        """Of a checkpoint directory of either kind. mesh: see sharding.make_mesh. needs: those of beside.NETWORKS that
        must be there. Raises OmniError."""
        directory, mesh = Path(directory), sharding.make_mesh(mesh)
        tensors = read_tensors(directory, config := OmniConfig.load(directory))
        require(config.token2wav_config is not None, str(directory), "has no Token2Wav; give a whole checkpoint")
        for name in needs:
            beside.require_network(directory, name)
        sizes = _sizes(directory, config.token2wav_config)
        networks = {name: _network(directory, name, part, mesh)
                    for name, part in {"codec_encoder": sizes and sizes.encoder,
                                       "speaker_encoder": config.token2wav_config.dit_config}.items()
                    if beside.exists(directory, name)}
        row, layers = next(pair for pair in match(tensors, config, directory) if pair[0].path == TABLE)
        table = np.asarray(layers[0].load(), np.float32).reshape(row.shape)
        table = jax.device_put(table[:config.token2wav_config.dit_config.sounds], NamedSharding(mesh, PartitionSpec()))
        return cls(directory, config.token2wav_config, sizes, mesh, networks, table)

    @property
    def mel(self) -> MelConfig:
        return self.sizes.mel if self.sizes else self.config.mel

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """Speech, float32 [samples] at 24 kHz -> its codes, int32 [samples // samples of a code]. Raises OmniError for
        sound that is none (see data.speech.check_speech)."""
        beside.require_network(self.directory, "codec_encoder")
        codes = len(wave := check_speech(wave)) // self.config.samples_per_code
        mel = self.log_mel(wave, codes * self.config.dit_config.repeats)
        with self._context():
            encode = functools.partial(_codes, *self.networks["codec_encoder"], self.table)
            return in_windows(encode, self.sizes.encoder, mel)

    def speaker(self, wave: np.ndarray, bos_token: int) -> Speaker:
        """A voice from a few seconds of it, float32 [samples] at 24 kHz; all of them are its reference. Raises
        OmniError as `encode` does."""
        beside.require_network(self.directory, "speaker_encoder")
        wave = check_speech(wave)
        mel = self.log_mel(wave, len(wave) // self.mel.hop)[None]
        with self._context():
            return Speaker(bos_token, np.asarray(_vector(*self.networks["speaker_encoder"], mel)), mel)

    def log_mel(self, wave: np.ndarray, frames: int) -> np.ndarray:
        """float32 [frames, M] of a recording; see `mel_of`."""
        return mel_of(wave, frames, self.mel)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        """A code is what is nearest: TPUs must not round the distances to bfloat16."""
        with jax.set_mesh(self.mesh), jax.default_matmul_precision("highest"):
            yield


def mel_of(wave: np.ndarray, frames: int, config: MelConfig) -> np.ndarray:
    """float32 [frames, M] of a recording, float32 [samples], that has so many; at its ends they see its reflection. It
    is taken in pieces of one of PIECES, the smallest that holds it all, or several of the last."""
    around = np.pad(wave, config.pad, mode="reflect")
    piece = next((size for size in PIECES if size >= frames), PIECES[-1])
    parts = []
    for first in range(0, frames, piece):
        stretch = around[first * config.hop:(first + piece) * config.hop + 2 * config.pad]
        stretch = np.pad(stretch, (0, piece * config.hop + 2 * config.pad - len(stretch)))
        parts.append(np.asarray(_log_mel(stretch[None], config))[0])
    return np.concatenate(parts)[:frames]


def _sizes(directory: Path, config: Token2WavConfig) -> CodecConfig | None:
    """Those of the codec encoder beside a checkpoint. Raises OmniError unless they fit its Token2Wav."""
    if not beside.exists(directory, "codec_encoder"):
        return None
    sizes, where = beside.load_codec_config(directory), str(beside.codec_file(directory))
    config.bigvgan_config.require_mel(sizes.mel, f"{where}: mel")
    for name in ("emb_dim", "block_size", "repeats"):
        ours, theirs = getattr(sizes.encoder, name), getattr(config.dit_config, name)
        require(ours == theirs, where, f"{name} {ours} must be {theirs}, as in the checkpoint's dit_config; the "
                "encoder was trained for another")
    return sizes


def _network(directory: Path, name: str, part: Any, mesh: Mesh) -> tuple[nnx.GraphDef, dict]:
    network = {"codec_encoder": CodecEncoder, "speaker_encoder": SpeakerEncoder}[name]
    graphdef, abstract = sharding.abstract(network, part, mesh)
    params = beside.load(directory, name, dict(leaves(abstract, f"{name}/")))
    return graphdef, nest(params)[name]


@functools.partial(jax.jit, static_argnames="graphdef")
def _codes(graphdef, params, table, mel, frames, begin) -> jax.Array:
    return nearest(nnx.merge(graphdef, params)(mel, frames, begin), table)


@functools.partial(jax.jit, static_argnames="graphdef")
def _vector(graphdef, params, mel) -> jax.Array:
    return nnx.merge(graphdef, params)(mel)


_log_mel = jax.jit(log_mel, static_argnames="config")
