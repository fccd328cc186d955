"""Rotary position embeddings, in float32: angles grow with the position, and bfloat16 has no room for them."""

import jax
import jax.numpy as jnp
import numpy as np


def inverse_frequencies(dims: int, theta: float) -> np.ndarray:
    """float32 [dims / 2]: radians per position of each rotary pair."""
    # Rounded where torch rounds: one unit in the last place here is 0.002 radians at position 32,768.
    exponents = np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims)
    return np.float32(1) / (theta ** exponents.astype(np.float64)).astype(np.float32)


def mrope(positions: jax.Array, sections: tuple[int, ...], theta: float) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) float32 [B, T, H/2] for positions [3, B, T].

    TMRoPE (paper section 2.2): contiguous blocks of the frequencies follow time, height and width.
    """
    frequencies = inverse_frequencies(2 * sum(sections), theta)
    rows = np.repeat(np.arange(len(sections)), sections)
    angles = jnp.moveaxis(positions[rows].astype(jnp.float32), 0, -1) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def axial(rows: jax.Array, columns: jax.Array, head_dim: int, theta: float = 10000.0) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) float32 [..., H/2] for a picture's grid [...]: half the pairs follow the row, half the column."""
    frequencies = inverse_frequencies(head_dim // 2, theta)
    angles = jnp.concatenate([grid[..., None].astype(jnp.float32) * frequencies for grid in (rows, columns)], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """x [..., T, N, H] turned by cos, sin [..., T, H/2]; pair i is (x[i], x[i + H/2])."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
