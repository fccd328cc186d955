"""Drawing the next token: repetition penalty, temperature, top-k, top-p, in the order of transformers' processors."""

import dataclasses
import math
import operator
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.errors import OmniError

COLDEST = 1e-6  # a lower temperature is greedy: logits divided by it would leave float32


class Sampler(NamedTuple):
    """What shapes the compiled program; the numbers themselves are traced, so that changing them compiles nothing."""

    draws: bool      # False: greedy
    top_k: int       # 0: the whole vocabulary
    nucleus: bool    # top_p below 1
    penalizes: bool  # repetition_penalty other than 1


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling settings. temperature below COLDEST: greedy. top_k 0 and top_p 1: no limit. repetition_penalty 1: none;
    it divides (multiplies, if negative) the logits of all tokens of the prompt and the reply so far. Raises OmniError.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        whole_number("top_k", self.top_k, 0)
        temperature, top_p, penalty = map(_in_float32, (self.temperature, self.top_p, self.repetition_penalty))
        for name, fine, rule in (
            ("temperature", 0 <= temperature < math.inf, "0 (greedy) or more"),
            ("top_p", 0 < top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < penalty < math.inf, "above 0 (1 is off)"),
        ):
            if not fine:
                raise OmniError(f"{name} is {_shown(getattr(self, name))}; it must be a number {rule}")

    @property
    def sampler(self) -> Sampler:
        draws = self.temperature >= COLDEST
        return Sampler(draws, int(self.top_k) if draws else 0, draws and self.top_p < 1, self.repetition_penalty != 1)

    @property
    def numbers(self) -> np.ndarray:
        """float32 [3]: temperature, top_p, repetition_penalty."""
        return np.array([self.temperature, self.top_p, self.repetition_penalty], np.float32)


def whole_number(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """`value` as an int. Raises OmniError with `name` unless it is an integer between the bounds."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < lowest or (highest is not None and number > highest):
        bounds = f"{lowest} or more" if highest is None else f"from {lowest} to {highest}"
        raise OmniError(f"{name} is {_shown(value)}; it must be a whole number {bounds}")
    return number


def row_seeds(seed: Any, rows: int) -> np.ndarray:
    """uint32 [rows], from one seed for all rows or one a row. Raises OmniError."""
    several = isinstance(seed, (list, tuple, range)) or np.ndim(seed) > 0
    seeds = [whole_number("seed", each, 0, 2**32 - 1) for each in (seed if several else [seed])]
    if len(seeds) not in (1, rows):
        raise OmniError(f"seed has {len(seeds)} entries for {rows} conversations; give one, or one each")
    return np.resize(np.array(seeds, np.uint32), rows)


def _in_float32(value: Any) -> float:
    """A number as the network gets it; NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(float(value)))
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    """A value in one short line of a message."""
    return " ".join(repr(value).split())[:60]


def penalize(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    """logits [B, V] with those of seen tokens (bool [B, V]) made less likely by `penalty` (> 1)."""
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def candidates(sampler: Sampler, numbers: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(values, ids) [B, k], best first, of the tokens that temperature, top-k and top-p leave; those that top-p
    drops have the value -inf. k is top_k, or the whole vocabulary."""
    temperature, top_p, _ = numbers
    V = logits.shape[-1]
    values, ids = jax.lax.top_k(logits / temperature, min(sampler.top_k, V) or V)
    if sampler.nucleus:
        likelihood = jax.nn.softmax(values, axis=-1)
        better = jnp.cumsum(likelihood, axis=-1) - likelihood
        values = jnp.where(better < top_p, values, -jnp.inf)
    return values, ids


def choose(sampler: Sampler, numbers: jax.Array, logits: jax.Array, seen: jax.Array, seeds: jax.Array,
           step: jax.Array) -> jax.Array:
    """The next token int32 [B] from float32 logits [B, V].

    The draw of a row depends on its seed (uint32 [B]) and the step alone, never on its place in the batch.
    """
    if sampler.penalizes:
        logits = penalize(logits, seen, numbers[2])
    if not sampler.draws:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not sampler.top_k and not sampler.nucleus:  # the whole vocabulary needs no sorting
        values, ids = logits / numbers[0], jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape)
    else:
        values, ids = candidates(sampler, numbers, logits)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seeds)
    place = jax.vmap(jax.random.categorical)(keys, values)
    return jnp.take_along_axis(ids, place[:, None], axis=-1)[:, 0].astype(jnp.int32)
