"""TMRoPE: time, height and width ids of every token of a prompt (paper section 2.2), as array arithmetic.

No walk over the items of a prompt: each token finds its item and its place in it by running counts, so that the
builder has static shapes, runs under jit and takes a 32,768-token prompt in milliseconds.
"""

import jax
import jax.numpy as jnp

from omni_jax.config import ThinkerConfig


def position_ids(config: ThinkerConfig, token_ids: jax.Array, lengths: jax.Array, vision_grid: jax.Array,
                 seconds_per_grid: jax.Array, start: jax.Array,
                 segments: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Ids int32 [3, B, T] (time, height, width; padding gets 1) and the next id int32 [B].

    token_ids int32 [B, T], padded on the right to lengths [B]; vision_grid int32 [B, I, 3]: frame pairs, rows and
    columns of cells of each picture and video in the order of their start tokens; seconds_per_grid float32 [B, I]
    (0 for pictures); start int32 [B]: the id of the first token (0, or where an earlier turn ended); segments int32
    [B, T]: where several conversations share a row, their numbers, and each begins at `start` again.

    Follows get_rope_index of transformers. Decoding goes on from the greatest id + 1 (as in 4.52.4, with which the
    weights were released), which differs from the last id + 1 when a video outlasts its own sound.
    """
    rows = (token_ids, lengths, vision_grid, seconds_per_grid, start, jnp.zeros_like(token_ids)
            if segments is None else segments)
    ids, following = jax.vmap(lambda *row: _row(config, *row))(*rows)
    return jnp.moveaxis(ids, 1, 0), following


def _row(config: ThinkerConfig, token_ids, length, grid, seconds, start, segments):
    """One row: token_ids [T], grid [I, 3], seconds [I], segments [T] -> ids [3, T], next id []."""
    valid = jnp.arange(token_ids.shape[0]) < length
    seen = valid & ((token_ids == config.image_token_index) | (token_ids == config.video_token_index))
    heard = valid & (token_ids == config.audio_token_index)
    local, size = _ids_in_item(config, token_ids, seen, heard, grid, seconds)
    # What a token adds to all that follow: text one id; a medium its size, at its last token.
    medium = seen | heard
    last = medium & ~jnp.append(medium[1:], False)
    step = jnp.where(medium, jnp.where(last, size, 0), 1 - _shares_id(config, token_ids))
    base = jnp.cumsum(step) - step
    base = start + base - _at_first(segments, base)
    ids = jnp.where(valid, base + jnp.where(medium, local, 0), 1)
    return ids.astype(jnp.int32), (jnp.max(jnp.where(valid, ids, -1)) + 1).astype(jnp.int32)


def _at_first(segments, rising):
    """What `rising` (never falling, from 0) is at the first token of each token's segment."""
    first = jnp.append(True, segments[1:] != segments[:-1])
    return jax.lax.cummax(jnp.where(first, rising, 0))


def _shares_id(config: ThinkerConfig, token_ids):
    """1 where the next token has the same id: vision start and audio start of a video with sound, and its two ends."""
    following = jnp.append(token_ids[1:], -1)
    starts = (token_ids == config.vision_start_token_id) & (following == config.audio_start_token_id)
    ends = (token_ids == config.audio_end_token_id) & (following == config.vision_end_token_id)
    return (starts | ends).astype(jnp.int32)


def _ids_in_item(config: ThinkerConfig, token_ids, seen, heard, grid, seconds):
    """Ids [3, T] counted from the item's start, and [T] the greatest of the token's chunk + 1.

    In a video with sound both streams count from the same start; the interleaving is in the order of the tokens, and
    the text after it goes on from the chunk that was appended last, whichever stream it belongs to.
    """
    vision_start = token_ids == config.vision_start_token_id
    item = jnp.maximum(jnp.cumsum(vision_start) - 1, 0)
    _, rows, columns = jnp.moveaxis(jnp.maximum(grid[item], 1), -1, 0)
    cell = _count_since(vision_start, seen)
    # float32 and in this order, as the reference: float64 truncates differently in one layout of ten.
    time = (cell // (rows * columns)).astype(jnp.float32) * seconds[item] * config.position_id_per_seconds
    time = time.astype(jnp.int32)
    sound = _count_since(token_ids == config.audio_start_token_id, heard)
    picture = jnp.stack([time, cell % (rows * columns) // columns, cell % columns])
    size = jnp.where(heard, sound, jnp.maximum(time, jnp.maximum(rows, columns) - 1)) + 1
    return jnp.where(heard, sound, picture), size


def _count_since(start, counted):
    """How many of `counted` lie between the last `start` and each token."""
    total = jnp.cumsum(counted)
    before = jax.lax.cummax(jnp.where(start, total, 0))
    return total - 1 - before
