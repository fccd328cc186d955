"""The codebook while it is learnt: how its codes are used, and new places for those that nobody uses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from omni_jax.config import DiTConfig
from omni_jax.inference.codec import TABLE
from omni_jax.training.config import TrainConfig

DECAY = 0.9    # of the running average of usage, per step: some dozens of steps without use make a code dead
SAMPLES = 8   # vectors of a row that a dead code may be set to
SAMPLE_DRAWS = (1 << 31) + 1  # the number of these draws among those of a row's seed; see voice.OTHER_DRAWS

Seen = dict[str, jax.Array]
Arrays = dict[str, jax.Array]


class Kept(NamedTuple):
    """What learning keeps between steps: parameters by path, their averages if the run has them, and the memory of the
    objective."""

    params: Arrays
    averages: Arrays
    memory: Arrays


def seen_codes(z: jax.Array, codes: jax.Array, exist: jax.Array, seeds: jax.Array, size: int) -> Seen:
    """What a batch shows of a codebook of V = `size` codes, in sums that add up over batches.

    z [B, n, C, E]: vectors, whose codes are int32 [B, n, C]; exist: bool [B, n, C], true up to each row's end; seeds
    uint32 [B]. Returns "usage" [V]: how often each code was chosen; "vectors" [V, E] and "drawn" [V]: some vectors of
    each row, each added to a place drawn by its seed, and how many were added there. Where that is one, the sum is a
    vector itself.
    """
    B, E = len(z), z.shape[-1]
    weights = exist.astype(jnp.float32).reshape(B, -1)
    counts = weights.sum(-1)

    def sample(seed, count):
        """Places in the row, one from each of SAMPLES equal parts, and in the sums."""
        where, to = jax.random.split(jax.random.fold_in(jax.random.key(seed), SAMPLE_DRAWS))
        parts = (jnp.arange(SAMPLES) + jax.random.uniform(where, (SAMPLES,))) / SAMPLES
        return jnp.minimum(parts * count, count - 1).astype(jnp.int32), jax.random.randint(to, (SAMPLES,), 0, size)

    places, slots = jax.vmap(sample)(seeds, counts)
    drawn = jnp.take_along_axis(weights, jnp.maximum(places, 0), axis=1)
    vectors = jnp.take_along_axis(z.reshape(B, -1, E), jnp.maximum(places, 0)[..., None], axis=1)
    add = lambda shape, at, what: jnp.zeros((size, *shape), jnp.float32).at[at].add(what)
    return {"usage": add((), codes.reshape(B, -1), weights), "drawn": add((), slots, drawn),
            "vectors": add((E,), slots, drawn[..., None] * vectors)}


def first_memory(config: DiTConfig) -> Arrays:
    """The memory of `revive` before the first step: all codes used alike."""
    size = config.sounds
    return {"usage": jnp.full((size,), 1 / size, jnp.float32)}


def revive(kept: Kept, seen: Seen, step: jax.Array, run: TrainConfig) -> Kept:
    """Codes whose share of the usage, a running average, fell below run.speech.revive / V move to vectors of this step.

    Of the parameters TABLE changes, and its averages: a code's old place is no part of the new one. memory: {"usage":
    float32 [V]}; seen: of `seen_codes`, summed over the step. As many codes move as vectors are there; which ones
    depends on step and seed. A moved code counts as used like all others, until it shows.
    """
    size = len(kept.memory["usage"])
    usage = DECAY * kept.memory["usage"] + (1 - DECAY) * seen["usage"] / jnp.maximum(seen["usage"].sum(), 1)
    dead, single = usage < run.speech.revive / size, seen["drawn"] == 1
    mixed = jax.random.uniform(jax.random.fold_in(jax.random.key(run.seed), step), (size,))
    to, of = jnp.argsort(jnp.where(dead, mixed, 2)), jnp.argsort(~single)
    moves = jnp.arange(size) < jnp.minimum(dead.sum(), single.sum())
    moved = lambda table: table.at[to].set(
        jnp.where(moves[:, None], seen["vectors"][of].astype(table.dtype), table[to]))
    with_moved = lambda arrays: {**arrays, TABLE: moved(arrays[TABLE])} if arrays else arrays
    return Kept(with_moved(kept.params), with_moved(kept.averages),
                {"usage": usage.at[to].set(jnp.where(moves, 1 / size, usage[to]))})


def keep_codebook(kept: Kept, seen: Seen, step: jax.Array, run: TrainConfig) -> tuple[Kept, Arrays]:
    """`revive` after a step of several micro-batches (`seen` [A, …]), and how many codes are in use."""
    kept = revive(kept, jax.tree.map(lambda x: x.sum(0), seen), step, run)
    return kept, codebook_metrics(kept.memory["usage"], run.speech.revive)


def codebook_metrics(usage: jax.Array, least: float = 0.0) -> Arrays:
    """float32 [] of a usage [V] (counts or shares): how many codes have a share above least / V, and the perplexity,
    V where all are used alike."""
    share = usage / jnp.maximum(usage.sum(), 1e-9)
    entropy = -(share * jnp.log(jnp.maximum(share, 1e-30))).sum()
    return {"used_codes": (share > least / len(usage)).sum().astype(jnp.float32), "perplexity": jnp.exp(entropy)}
