"""The vision tower: frame pairs of pictures and videos to one vector per 2 x 2 patches (paper section 2.1).

Attention is local: windows of 4 x 4 cells (a cell is 2 x 2 patches), and in a few layers the whole frame pair. So a
frame pair is laid out in bins of one window's size, with the partial windows of its edges packed several to a bin;
window attention is then a batch of small dense blocks, and almost no padding is computed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax.config import PIXEL_MEAN, PIXEL_STD, VisionConfig
from omni_jax.models import rope
from omni_jax.models.attention import attend
from omni_jax.models.layers import GatedMLP, Linear, RMSNorm, each, gelu, stack
from omni_jax.sharding import constrain, media_axis

EPS = 1e-6


def normalize_pixels(pixels: jax.Array) -> jax.Array:
    """uint8 [..., 3 * patch] (colour varies slowest) -> float32, normalised as CLIP's pictures."""
    x = pixels.astype(jnp.float32).reshape(*pixels.shape[:-1], 3, -1) / 255
    mean, std = (np.array(colours, np.float32)[:, None] for colours in (PIXEL_MEAN, PIXEL_STD))
    return ((x - mean) / std).reshape(pixels.shape)


class VisionLayer(GatedMLP):
    """Pre-norm attention and gated MLP, all with biases; it is its own MLP, so that its weights lie on one level."""

    def __init__(self, rngs: nnx.Rngs, config: VisionConfig, dtype: Any):
        D, N = config.hidden_size, config.num_heads
        super().__init__(rngs, D, config.intermediate_size, dtype, bias=True)
        heads = lambda: Linear(rngs, (D,), (N, D // N), ("heads", "head_dim", "embed"), dtype, bias=True)
        self.attention_norm = RMSNorm(rngs, D, EPS, dtype)
        self.q, self.k, self.v = heads(), heads(), heads()
        self.o = Linear(rngs, (D,), (D,), ("embed", ("heads", D // N)), dtype, bias=True)
        self.mlp_norm = RMSNorm(rngs, D, EPS, dtype)

    def __call__(self, x, turn, window, full, axis):
        """x [F, W, P, D] (P patches a bin), turn (cos, sin) [F, W, P, H/2], window int32 [F, W, P] (-1: padding),
        full bool: attend over the frame pair instead of the window; axis: see sharding.media_axis."""
        h = self.attention_norm(x)
        q, k, v = (constrain(part(h), axis, axis, None, "heads", None) for part in (self.q, self.k, self.v))
        q, k = rope.rotate(q, *turn), rope.rotate(k, *turn)
        frame, bins = (functools.partial(attend_in, axis=axis) for attend_in in (_attend_frame, _attend_window))
        read = constrain(_cond(full, frame, bins, q, k, v, window), axis, axis, None, "heads", None)
        x = _laid(x + self.o(read.reshape(x.shape)), axis)
        return _laid(x + super().__call__(self.mlp_norm(x)), axis)


def _laid(x, axis):
    """x [F, W, P, D] split by frame pairs, or by the bins of too few."""
    return constrain(x, axis, axis, None, None)


def _cond(chosen, yes, no, *inputs):
    """jax.lax.cond, of which only one side is compiled where the choice is known."""
    if isinstance(chosen, jax.Array):
        return jax.lax.cond(chosen, yes, no, *inputs)
    return (yes if chosen else no)(*inputs)


def _attend_window(q, k, v, window, axis):
    F, W, P, N, H = q.shape
    laid = lambda x: constrain(x, axis, None, "heads", None)
    bins = lambda x: laid(x.reshape(F * W, P, N, H))
    window = window.reshape(F * W, P)
    mask = (window[:, :, None] == window[:, None]) & (window[:, None] >= 0)
    read = attend(bins(q), jnp.swapaxes(bins(k), 1, 2), jnp.swapaxes(bins(v), 1, 2), mask, rows=axis)
    return laid(read).reshape(q.shape)


def _attend_frame(q, k, v, window, axis):
    F, W, P, N, H = q.shape
    frame = lambda x: x.reshape(F, W * P, N, H)
    mask = window.reshape(F, 1, W * P) >= 0
    read = attend(frame(q), jnp.swapaxes(frame(k), 1, 2), jnp.swapaxes(frame(v), 1, 2), mask, rows=axis)
    return read.reshape(q.shape)


class PatchMerger(nnx.Module):
    """Joins the patches of a cell into one vector of the Thinker's width."""

    def __init__(self, rngs: nnx.Rngs, config: VisionConfig, dtype: Any):
        joined = config.hidden_size * config.spatial_merge_size**2
        self.norm = RMSNorm(rngs, config.hidden_size, EPS, dtype)
        self.fc1 = Linear(rngs, (joined,), (joined,), ("mlp", "embed"), dtype, bias=True)
        self.fc2 = Linear(rngs, (joined,), (config.out_hidden_size,), ("embed", "mlp"), dtype, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., patches of a cell, D] -> [..., out_hidden_size]."""
        x = self.norm(x)
        x = x.reshape(*x.shape[:-2], -1)
        return self.fc2(gelu(self.fc1(x)))


class VisionEncoder(nnx.Module):
    """Source: Qwen2_5OmniVisionEncoder."""

    def __init__(self, rngs: nnx.Rngs, config: VisionConfig, dtype: Any, scanned: bool = True):
        self.config = config
        pixels = config.in_channels * config.temporal_patch_size * config.patch_size**2
        self.patch_embed = Linear(rngs, (pixels,), (config.hidden_size,), ("embed", "conv_in"), dtype)
        self.layers = stack(VisionLayer, rngs, config.depth, config, dtype, scanned=scanned)
        self.merger = PatchMerger(rngs, config, dtype)

    def __call__(self, pixels: jax.Array, cells: jax.Array, remat: str = "none") -> jax.Array:
        """pixels uint8 [F, W, C, m * m, colours * frames * height * width of a patch]: F frame pairs of W bins of
        C cells of m * m patches; cells int32 [F, W, C, 3]: row, column and window of each cell, -1 for padding.

        Returns [F, W, C, D], one vector a cell, in the order of the cells. remat: see layers.each.
        """
        F, W, C, patches, _ = pixels.shape
        merge = self.config.spatial_merge_size
        x = self.patch_embed(normalize_pixels(pixels).astype(self.patch_embed.weight.dtype))
        x = x.reshape(F, W, C * patches, -1)
        inside = np.arange(patches)
        rows = (cells[..., 0, None] * merge + inside // merge).reshape(F, W, -1)
        columns = (cells[..., 1, None] * merge + inside % merge).reshape(F, W, -1)
        turn = rope.axial(rows, columns, self.config.hidden_size // self.config.num_heads)
        window = jnp.repeat(cells[..., 2], patches, axis=-1)
        full = [index in self.config.fullatt_block_indexes for index in range(self.config.depth)]
        is_full = lambda index: full[index] if isinstance(index, int) else jnp.array(full)[index]
        axis = media_axis(F * W * C * patches, self.config.hidden_size, 1.5 * self.config.intermediate_size)
        x = each(self.layers, self.config.depth,
                 lambda layer, index, x: layer(x, turn, window, is_full(index), axis), _laid(x, axis), remat)
        return self.merger(x.reshape(F, W, C, patches, -1))
