"""The codec encoder: mel to the codes that the DiT speaks (no release has one).

A code is the row of the DiT's own table that is nearest to what the encoder writes, so there is one codebook and
nothing to keep in step. As in the DiT, a position sees its own block and a few neighbours, in batches of small dense
products: a code waits for a bounded stretch of sound, and a long clip is a batch of windows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers

from omni_jax.config import CodecEncoderConfig
from omni_jax.models import rope
from omni_jax.models.attention import attend_blocks
from omni_jax.models.layers import GatedMLP, Linear, RMSNorm, each, param, stack
from omni_jax.sharding import constrain

MEL_CENTRE, MEL_SPREAD = -5.0, 3.0  # of natural log mels of speech, which lie between -11.5 and 2
WINDOWS = 8, 16, 32  # blocks of a clip that are encoded together: few shapes, and little padding for short clips


class CodecEncoderLayer(GatedMLP):
    """Pre-norm attention over neighbouring blocks and a gated MLP; it is its own MLP, as in the decoder."""

    def __init__(self, rngs: nnx.Rngs, config: CodecEncoderConfig, dtype: Any):
        D, N, H = config.hidden_size, config.num_attention_heads, config.head_dim
        super().__init__(rngs, D, config.intermediate_size, dtype)
        self.looks = config.look_back, config.look_ahead
        heads = lambda: Linear(rngs, (D,), (N, H), ("heads", "head_dim", "embed"), dtype)
        self.attention_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)
        self.q, self.k, self.v = heads(), heads(), heads()
        self.o = Linear(rngs, (N * H,), (D,), ("embed", ("heads", H)), dtype)
        self.mlp_norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)

    def __call__(self, x: jax.Array, mask: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
        """x [B, n, C, D], mask bool [B, n, S]: what exists of the S positions that a block sees; turn: cos, sin
        [S, H / 2] of these positions."""
        back, ahead = self.looks
        C, (cos, sin) = x.shape[2], turn
        own = slice(back * C, (back + 1) * C)
        h = self.attention_norm(x)
        q = rope.rotate(self.q(h), cos[own], sin[own])
        k, v = (neighbourhood(part(h), back, ahead) for part in (self.k, self.v))
        read = attend_blocks(q, rope.rotate(k, cos, sin), v, mask)
        x = constrain(x + self.o(read.reshape(*x.shape[:-1], -1)), "batch", "mel_blocks", None, None)
        return constrain(x + super().__call__(self.mlp_norm(x)), "batch", "mel_blocks", None, None)


class CodecEncoder(nnx.Module):
    """Mel to vectors near the rows of a codec table of width E. C: codes of a block."""

    def __init__(self, config: CodecEncoderConfig, rngs: nnx.Rngs, dtype: Any, scanned: bool = True):
        self.config = config
        D, E = config.hidden_size, config.emb_dim
        self.input = Linear(rngs, (config.repeats * config.mel_dim,), (D,), ("embed", "conv_in"), dtype, bias=True)
        self.layers = stack(CodecEncoderLayer, rngs, config.num_hidden_layers, config, dtype, scanned=scanned)
        self.norm = RMSNorm(rngs, D, config.rms_norm_eps, dtype)
        self.output = Linear(rngs, (D,), (E,), (None, "embed"), dtype, bias=True)
        # Squared distances between random rows are about 2 E; divided by E they are logits of a moderate size.
        self.log_scale = param(rngs, initializers.constant(-math.log(E)), (1,), ("norm",), dtype)

    def __call__(self, mel: jax.Array, frames: jax.Array, begin: jax.Array | None = None,
                 remat: str = "none") -> jax.Array:
        """mel [B, n, T, M] in blocks -> z [B, n, C, E]. int32 [B]: frames `begin` (None: 0) up to `frames` of each row
        exist; what stands elsewhere changes nothing. remat: see layers.each."""
        c, dtype = self.config, self.input.weight.dtype
        B, n, T, _ = mel.shape
        begin = jnp.zeros_like(frames) if begin is None else begin
        at = jnp.arange(n * T)
        exist = ((at >= begin[:, None]) & (at < frames[:, None])).reshape(B, n, c.codes_per_block, c.repeats)
        mel = jnp.where(exist.reshape(B, n, T, 1), (mel - MEL_CENTRE) / MEL_SPREAD, 0)
        x = self.input(mel.astype(dtype).reshape(B, n, c.codes_per_block, -1))
        x = constrain(x, "batch", "mel_blocks", None, None)
        mask, turn = neighbourhood(exist.any(-1), c.look_back, c.look_ahead), self._turn()
        x = each(self.layers, c.num_hidden_layers, lambda layer, _, x: layer(x, mask, turn), x, remat)
        return self.output(self.norm(x))

    def scores(self, z: jax.Array, table: jax.Array) -> jax.Array:
        """Logits float32 [..., V] of z [..., E] over the rows of a table [V, E]: the nearer, the greater."""
        return -jnp.exp(self.log_scale[...].astype(jnp.float32)) * distances(z, table)

    def _turn(self) -> tuple[jax.Array, jax.Array]:
        """Positions count from a block's own first one: no angle grows with the clip, and a window need not know where
        in the clip it lies."""
        c = self.config
        positions = np.arange(-c.look_back * c.codes_per_block, (1 + c.look_ahead) * c.codes_per_block)
        angles = positions[:, None].astype(np.float32) * rope.inverse_frequencies(c.head_dim, c.rope_theta)
        return jnp.cos(angles), jnp.sin(angles)


def distances(z: jax.Array, table: jax.Array) -> jax.Array:
    """Squared distances float32 [..., V] of z [..., E] to the rows of a table [V, E]."""
    z, table = z.astype(jnp.float32), table.astype(jnp.float32)
    products = jnp.einsum("...e,ve->...v", z, table, precision=jax.lax.Precision.HIGHEST)
    return (z * z).sum(-1, keepdims=True) - 2 * products + (table * table).sum(-1)


def nearest(z: jax.Array, table: jax.Array) -> jax.Array:
    """int32 [...]: the rows of a table [V, E] that are nearest to z [..., E]."""
    return jnp.argmin(distances(z, table), axis=-1).astype(jnp.int32)


def neighbourhood(x: jax.Array, back: int, ahead: int) -> jax.Array:
    """[B, n, C, …] -> [B, n, (back + 1 + ahead) * C, …]: of each block, those before, itself and those after; zeros
    (False) beyond the ends."""
    n = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (back, ahead), *[(0, 0)] * (x.ndim - 2)))
    return jnp.concatenate([padded[:, i:i + n] for i in range(back + 1 + ahead)], axis=2)


def in_windows(encode: Callable[[np.ndarray, np.ndarray, np.ndarray], jax.Array], config: CodecEncoderConfig,
               mel: np.ndarray, sizes: Sequence[int] = WINDOWS) -> np.ndarray:
    """What `encode` (mel [1, n, T, M], frames [1], begin [1]) -> [1, n, C, …] gives for a clip of any length, mel
    [frames, M] -> [codes, …].

    Windows of one of these `sizes`, the smallest that holds the clip, or several of the last; with all the context that
    their codes depend on, so that seams are exact.
    """
    back, ahead = config.reach
    T, C, frames = config.block_size, config.codes_per_block, len(mel)
    blocks = next((size for size in sizes if size * T >= frames), sizes[-1])
    before, whole = back * T, -(-frames // (blocks * T))
    padded = np.pad(mel, ((before, whole * blocks * T - frames + ahead * T), (0, 0)))
    parts = []
    for first in range(0, whole * blocks * T, blocks * T):
        window = padded[first:first + (back + blocks + ahead) * T].reshape(1, -1, T, mel.shape[1])
        ends = (min(max(0, edge - first), window.shape[1] * T) for edge in (before + frames, before))
        out = encode(window, *(np.array([end], np.int32) for end in ends))
        parts.append(np.asarray(out)[0, back:back + blocks].reshape(blocks * C, *out.shape[3:]))
    return np.concatenate(parts)[:-(-frames // config.repeats)]
