"""The parameters of a run: which learn, and which are frozen."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from omni_jax.errors import OmniError
from omni_jax.training.step import Params
from omni_jax.weights.names import leaves


def learning(paths: Iterable[str], patterns: Sequence[str], where: str = "train") -> set[str]:
    """The paths that fit a pattern (`fnmatch`). Raises OmniError, named by `where`, for a pattern that fits none."""
    paths = list(paths)
    found = set()
    for pattern in patterns:
        own = fnmatch.filter(paths, pattern)
        if not own:
            near = difflib.get_close_matches(pattern, paths, 3, 0.0)
            raise OmniError(f"{where}: no parameter fits {pattern!r}; there are, among others, {', '.join(near)}")
        found |= set(own)
    return found


def typed(abstract: dict, learns: set[str], dtype: str) -> dict[str, jax.ShapeDtypeStruct]:
    """{path: abstract leaf} of a parameter tree: what learns in float32, what is frozen in the run's dtype."""
    kind = lambda path: jnp.float32 if path in learns else jnp.dtype(dtype)
    return {path: jax.ShapeDtypeStruct(leaf.shape, kind(path), sharding=leaf.sharding)
            for path, leaf in leaves(abstract)}


def split(flat: dict[str, jax.Array], learns: set[str]) -> tuple[Params, Params]:
    """(what learns, what is frozen)."""
    return ({path: leaf for path, leaf in flat.items() if path in learns},
            {path: leaf for path, leaf in flat.items() if path not in learns})
