"""How likely the model finds replies that somebody else has written."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax.data.batch import Prompt, collate
from omni_jax.data.buckets import bucket
from omni_jax.data.processor import check_context
from omni_jax.inference import generate
from omni_jax.inference.omni import Omni

POSITIONS = 256  # whose logits, float32 [POSITIONS, V], are held at a time
FEWEST = 16


@dataclasses.dataclass(frozen=True)
class Answered:
    """A prompt and a reply to it: tokens int32 [n], the end mark included."""

    prompt: Prompt
    tokens: np.ndarray


def answered(omni: Omni, prompt: Prompt, reply: str) -> Answered:
    """With the tokens that the model would draw for `reply`: those of the reply by itself. Raises OmniError if the
    context has no room for it."""
    tokens = np.array(omni.reply_ids(reply), np.int32)
    check_context(prompt, omni.config, max_new_tokens=len(tokens))
    return Answered(prompt, tokens)


def log_likelihoods(omni: Omni, batch: Sequence[Answered]) -> list[np.ndarray]:
    """float32 [n] for each: log p of every token of the reply, given the prompt and the tokens before it.

    All are read as one batch; logits are computed of the replies' positions alone.
    """
    # Nothing follows the end mark, so nobody needs to read it.
    prompts = [dataclasses.replace(each.prompt, token_ids=np.concatenate([each.prompt.token_ids, each.tokens[:-1]]))
               for each in batch]
    targets = np.concatenate([each.tokens for each in batch])
    rows = np.repeat(np.arange(len(batch)), [len(each.tokens) for each in batch])
    places = np.concatenate([len(each.prompt.token_ids) - 1 + np.arange(len(each.tokens)) for each in batch])
    pieces: list[tuple[np.ndarray, jax.Array]] = []  # (which of the targets, their log p and padding)

    def keep(offset: int, hidden: jax.Array) -> None:
        T = hidden.shape[1]
        here = np.flatnonzero((offset <= places) & (places < offset + T))
        for own in np.split(here, range(POSITIONS, len(here), POSITIONS)):
            if own.size:
                flat, wanted = np.zeros((2, bucket(own.size, FEWEST, steps=1)), np.int32)
                flat[: own.size], wanted[: own.size] = rows[own] * T + places[own] - offset, targets[own]
                pieces.append((own, _log_p(omni.network.graphdef, omni.network.params, hidden, flat, wanted)))

    generate.read(omni.network, collate(prompts, omni.config, devices=omni.network.mesh.size), keep)
    found = np.zeros(len(targets), np.float32)
    for own, values in pieces:
        found[own] = np.asarray(values)[: own.size]
    return np.split(found, np.cumsum([len(each.tokens) for each in batch])[:-1])


@functools.partial(jax.jit, static_argnames="graphdef")
def _log_p(graphdef, params, hidden, places, targets):
    """float32 [n]: log p of targets int32 [n] after the positions int32 [n] of hidden [B, T, D], counted b * T + t."""
    logits = nnx.merge(graphdef, params).logits(hidden.reshape(-1, hidden.shape[-1])[places])
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]
