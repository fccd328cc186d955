"""The DiT: codec codes to mel by flow matching (paper section 2.4), over blocks of 24 mel frames.

A position attends to its own block only, except in a few layers that also see the block before or the block after. So
the network works on [rows, blocks, frames, D], and attention is a batch of small dense products. One evaluation at
block b reads blocks b-2 .. b+1 and nothing else.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax.config import DiTConfig
from omni_jax.models import rope
from omni_jax.models.attention import attend_blocks
from omni_jax.models.ecapa import ECAPA
from omni_jax.models.layers import Embedding, Linear, each, stack
from omni_jax.sharding import constrain, on_one_device

EPS = 1e-6
TIME_WIDTH, TIME_SCALE = 256, 1000  # sinusoids of a time; fixed by the reference
STEPS, STAGES = 9, 4  # the reference's; with fewer steps the solver is faster
EVALUATIONS = STEPS * STAGES
GUIDANCE = 0.5
# Runge-Kutta's 3/8 rule: where each stage stands within a step, and the earlier slopes that lead there.
_NODES = np.array([0, 1 / 3, 2 / 3, 1])
_SLOPES = np.array([[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]], np.float32)
_WEIGHTS = np.array([1, 3, 3, 1], np.float32) / 8


class Modulations(NamedTuple):
    """AdaLN's shifts, scales and gates at each time: the same for every clip, so they are computed once.

    `layers` [times, L, 6, D]: shift, scale, gate of the attention, then of the MLP; `last` [times, 2, D]: scale, shift.
    """

    layers: jax.Array
    last: jax.Array

    @property
    def steps(self) -> int:
        """Of the solver, if its `times` are these."""
        return (len(self.last) - 1) // 3

    def of_rows(self) -> "Modulations":
        """For rows that each have a time of their own, [L, 6, R, 1, 1, D] and [2, R, 1, 1, D]."""
        own = lambda x: jnp.moveaxis(x, 0, -2)[..., None, None, :]
        return Modulations(own(self.layers), own(self.last))


class View(NamedTuple):
    """What an evaluation knows of the blocks that it works on, the same in all layers and at all times.

    Masks: True where a query of a block may look. R rows, or 2 B: guided, then unguided.
    """

    turn: tuple[jax.Array, jax.Array]  # cos, sin [n, T, 1, H] of absolute positions; sin negative for a pair's first
    own: jax.Array      # bool [R, n, T]: frames that exist
    back: jax.Array     # bool [R, n, 2 T]: the block before, then the own
    ahead: jax.Array    # bool [R, n, 2 T]: the own block, then the next
    current: jax.Array  # int32 []: blocks before the look-ahead; the keys and values of the last of them are kept


def knots(steps: int = STEPS) -> np.ndarray:
    """float32 [steps + 1]: the times between which the solver steps; "sway" draws them towards the start."""
    step, half = np.float32(1) / np.float32(steps), (steps + 1) // 2
    rising = [step * np.float32(i) for i in range(half)]  # counted from both ends, as torch.linspace does
    rising += [np.float32(1) - step * np.float32(i) for i in range(steps - half, -1, -1)]
    t = np.array(rising, np.float32)
    return t - (np.cos(np.float32(np.pi / 2) * t) - np.float32(1) + t)


def times(steps: int = STEPS) -> np.ndarray:
    """float32 [3 * steps + 1]: the distinct times of all evaluations; evaluation 4 s + j is at time 3 s + j."""
    t = knots(steps)
    inner = t[:-1, None] + np.diff(t)[:, None] * _NODES[:3].astype(np.float32)
    return np.append(inner.astype(np.float32).ravel(), t[-1])


def sinusoids(t: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """float32 [len(t), TIME_WIDTH]; rounded where the reference rounds, for angles go up to 1,000."""
    half, library = TIME_WIDTH // 2, t.__array_namespace__()
    exponents = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1))
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = (np.float32(TIME_SCALE) * t.astype(np.float32))[:, None] * frequencies
    return library.concatenate([library.sin(angles), library.cos(angles)], axis=1)


class DiTLayer(nnx.Module):
    """Attention over neighbouring blocks and an MLP, both modulated and gated by the time."""

    def __init__(self, rngs: nnx.Rngs, config: DiTConfig, dtype: Any):
        D, N, H = config.hidden_size, config.num_attention_heads, config.head_dim
        F = D * config.ff_mult
        heads = lambda: Linear(rngs, (D,), (N, H), ("heads", "head_dim", "embed"), dtype, bias=True)
        self.modulation = Linear(rngs, (D,), (6, D), (None, "mlp", "embed"), dtype, bias=True)
        self.q, self.k, self.v = heads(), heads(), heads()
        self.o = Linear(rngs, (N * H,), (D,), ("embed", ("heads", H)), dtype, bias=True)
        self.fc1 = Linear(rngs, (D,), (F,), ("mlp", "embed"), dtype, bias=True)
        self.fc2 = Linear(rngs, (F,), (D,), ("embed", "mlp"), dtype, bias=True)

    def __call__(self, x: jax.Array, modulation: jax.Array, view: View, looks: str, kept: jax.Array | None):
        """x [R, n, T, D], modulation [6, D] or [6, R, 1, 1, D], `looks`: "own", "back" or "ahead"; `kept` [2, R, T, N,
        H]: keys and values of the block before the first (None: there is none). Returns x and the keys and values to
        keep."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        h = _modulate(x, shift, scale)
        q, k, v = _turn_first_head(self.q(h), view.turn), _turn_first_head(self.k(h), view.turn), self.v(h)
        last = None
        if looks == "back" and kept is not None:
            last = jnp.stack([jax.lax.dynamic_index_in_dim(x, view.current - 1, 1, False) for x in (k, v)])
        read = attend_blocks(q, *_neighbours(k, v, looks, kept), getattr(view, looks))
        x = constrain(x + gate * self.o(read.reshape(*x.shape[:-1], -1)), "batch", "mel_blocks", None, None)
        h = jax.nn.gelu(self.fc1(_modulate(x, mlp_shift, mlp_scale)), approximate=True)
        return constrain(x + mlp_gate * self.fc2(h), "batch", "mel_blocks", None, None), last


class DiT(nnx.Module):
    """Source: Qwen2_5OmniToken2WavDiTModel. float32 on every device, as its solver needs."""

    def __init__(self, rngs: nnx.Rngs, config: DiTConfig, dtype: Any, scanned: bool = True):
        self.config = config
        D = config.hidden_size
        self.time = _TimeEmbedding(rngs, D, dtype)
        self.codec_embed = Embedding(rngs, config.codec_rows, config.emb_dim, dtype)
        self.input = Linear(rngs, (config.input_size,), (D,), ("embed", "conv_in"), dtype, bias=True)
        self.speaker = ECAPA(rngs, config, dtype)
        self.layers = stack(DiTLayer, rngs, config.num_hidden_layers, config, dtype, scanned=scanned)
        self.modulation = Linear(rngs, (D,), (2, D), (None, "mlp", "embed"), dtype, bias=True)
        self.output = Linear(rngs, (D,), (config.mel_dim,), (None, "embed"), dtype, bias=True)

    def modulations(self, t: jax.Array | np.ndarray | None = None) -> Modulations:
        """Of times t (float32 [times], 0 to 1), or of all times of the reference's solver."""
        waves = jnp.asarray(sinusoids(times() if t is None else t), self.input.weight.dtype)
        time = jax.nn.silu(self.time(waves))
        if isinstance(self.layers, nnx.List):
            layers = jnp.stack([layer.modulation(time) for layer in self.layers], axis=1)
        else:
            graphdef, weights = nnx.split(self.layers.modulation)
            layers = jax.vmap(lambda weights: nnx.merge(graphdef, weights)(time), out_axes=1)(weights)
        return Modulations(layers, self.modulation(time))

    def voice(self, speaker: jax.Array, reference: jax.Array) -> jax.Array:
        """A speaker vector [B, enc_emb_dim] and a reference mel [B, T, M] -> [B, 2, D]: what they add to every frame,
        guided, and unguided (where both are zero, the mel still passing through ECAPA)."""
        both = jnp.stack([self.speaker(reference), self.speaker(jnp.zeros_like(reference))], axis=1)
        return self._voice(jnp.stack([speaker, jnp.zeros_like(speaker)], axis=1), both)

    def guided_voice(self, speaker: jax.Array, reference: jax.Array) -> jax.Array:
        """`voice` without its unguided half, [B, D]."""
        return self._voice(speaker, self.speaker(reference))

    def _voice(self, speaker: jax.Array, heard: jax.Array) -> jax.Array:
        M, P, E = self.config.mel_dim, self.config.enc_dim, self.config.emb_dim
        weight = self.input.weight[...]
        return heard @ weight[:, M:M + P].T + speaker @ weight[:, M + P + E:].T + self.input.bias[...]

    def given(self, codes: jax.Array, voices: jax.Array) -> jax.Array:
        """int32 [B, n, codes of a block] and voices [B, 2, D] -> [2 B, n, T, D]: all of the input but the noisy mel."""
        both = jnp.concatenate([codes, jnp.zeros_like(codes)])
        return self.given_embedded(self.codec_embed(both), jnp.concatenate([voices[:, 0], voices[:, 1]]))

    def given_embedded(self, embedded: jax.Array, voice: jax.Array) -> jax.Array:
        """Embeddings of codes [R, n, codes of a block, E] and what each row's voice adds, [R, D] -> [R, n, T, D]."""
        M, P, E = self.config.mel_dim, self.config.enc_dim, self.config.emb_dim
        frames = jnp.repeat(embedded @ self.input.weight[...][:, M + P:M + P + E].T, self.config.repeats, axis=2)
        return frames + voice[:, None, None]

    def view(self, first: jax.Array, frames: jax.Array, blocks: int, current: jax.Array, guided: bool = True) -> View:
        """Of `blocks` blocks from the clip's block `first` (int32 []), of which each row has `frames` (int32 [B]).
        guided: whether the unguided rows come along."""
        T = self.config.block_size
        positions = (first * T + jnp.arange(blocks * T)).reshape(blocks, T, 1, 1).astype(jnp.float32)
        angles = positions * rope.inverse_frequencies(self.config.head_dim, self.config.rope_theta)
        own = (jnp.arange(blocks * T) < frames[:, None]).reshape(-1, blocks, T)
        own = jnp.concatenate([own, own]) if guided else own
        before = jnp.concatenate([jnp.broadcast_to(first > 0, own[:, :1].shape), own[:, :-1]], axis=1)
        after = jnp.concatenate([own[:, 1:], jnp.zeros_like(own[:, :1])], axis=1)
        cos, sin = (jnp.repeat(wave(angles), 2, axis=-1) for wave in (jnp.cos, jnp.sin))
        turn = cos, sin * np.tile(np.float32([-1, 1]), angles.shape[-1])
        return View(turn, own, jnp.concatenate([before, own], -1),
                    jnp.concatenate([own, after], -1), current)

    def empty_kept(self, batch: int, steps: int = STEPS) -> jax.Array:
        """Keys and values of the block before a chunk, for each evaluation and each layer that looks back."""
        c = self.config
        return _laid_out(jnp.zeros((steps * STAGES, len(c.look_backward_layers), 2, 2 * batch, c.block_size,
                                    c.num_attention_heads, c.head_dim), jnp.float32))

    def __call__(self, x: jax.Array, given: jax.Array, modulations: Modulations, view: View,
                 kept: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
        """One evaluation: noisy mel [B, n, T, M] -> its velocity, with guidance, and the new `kept`.

        given [2 B, n, T, D]; modulations of this one time ([L, 6, D] and [2, D]); kept [layers that look back, 2, 2 B,
        T, N, H], or None where the clip is solved whole.
        """
        h = self._noisy(x)
        velocity, news = self._evaluate(jnp.concatenate([h, h]) + given, modulations, view, kept, None)
        guided, free = jnp.split(velocity, 2)
        return guided + GUIDANCE * (guided - free), None if kept is None else jnp.stack(news)

    def velocity(self, x: jax.Array, given: jax.Array, modulations: Modulations, view: View,
                 remat: str = "none") -> jax.Array:
        """One evaluation without guidance, for training: noisy mel [R, n, T, M], given [R, n, T, D] -> [R, n, T, M].

        modulations: of one time, or of each row's (see Modulations.of_rows). view: not guided. remat: see layers.each.
        """
        return self._evaluate(self._noisy(x.astype(given.dtype)) + given, modulations, view, None, remat)[0]

    def _noisy(self, x: jax.Array) -> jax.Array:
        return x @ self.input.weight[...][:, :self.config.mel_dim].T

    def _evaluate(self, h: jax.Array, modulations: Modulations, view: View, kept: jax.Array | None,
                  remat: str | None) -> tuple[jax.Array, list]:
        """Input vectors [R, n, T, D] -> velocities [R, n, T, M], and what to keep of each layer that looks back.
        remat: None where there is no backward pass."""
        h = constrain(h, "batch", "mel_blocks", None, None)
        news = []
        for first, last, looks in self._runs():
            if remat is not None:
                h = self._trained_run(h, modulations.layers, view, first, last, looks, remat)
                continue
            before = None if kept is None or looks != "back" else kept[len(news)]
            h, new = self._run(h, modulations.layers, view, first, last, looks, before)
            news += [new] if looks == "back" else []
        scale, shift = modulations.last
        return self.output(_modulate(h, shift, scale)), news

    def _runs(self) -> list[tuple[int, int, str]]:
        """(first, last + 1, where they look) of consecutive layers that are alike."""
        runs: list[tuple[int, int, str]] = []
        for i in range(self.config.num_hidden_layers):
            looks = "back" if i in self.config.look_backward_layers else (
                "ahead" if i in self.config.look_ahead_layers else "own")
            if runs and looks == "own" == runs[-1][2]:
                runs[-1] = (runs[-1][0], i + 1, looks)
            else:
                runs.append((i, i + 1, looks))
        return runs

    def _run(self, h, modulations, view, first, last, looks, kept):
        if isinstance(self.layers, nnx.List):
            for i in range(first, last):
                h, new = self.layers[i](h, modulations[i], view, looks, kept)
            return h, new
        graphdef, weights = nnx.split(self.layers)
        at = lambda i: nnx.merge(graphdef, jax.tree.map(lambda w: w[i], weights))
        if last - first == 1:
            return at(first)(h, modulations[first], view, looks, kept)
        return jax.lax.fori_loop(first, last, lambda i, h: at(i)(h, modulations[i], view, looks, kept)[0], h), None


    def _trained_run(self, h, modulations, view, first, last, looks, remat):
        """`_run` as a scan over weights: a loop that indexes them would add up gradients of the whole stack in each
        turn."""
        if isinstance(self.layers, nnx.List):
            layers = nnx.List(list(self.layers)[first:last])
        else:
            graphdef, weights = nnx.split(self.layers)
            layers = nnx.merge(graphdef, jax.tree.map(lambda w: w[first:last], weights))
        own = modulations[first:last]
        return each(layers, last - first, lambda layer, i, h: layer(h, own[i], view, looks, None)[0], h, remat)


class _TimeEmbedding(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, width: int, dtype: Any):
        self.fc1 = Linear(rngs, (TIME_WIDTH,), (width,), ("mlp", "conv_in"), dtype, bias=True)
        self.fc2 = Linear(rngs, (width,), (width,), ("embed", "mlp"), dtype, bias=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.silu(self.fc1(x)))


def solve(model: DiT, noise: jax.Array, given: jax.Array, table: Modulations, view: View,
          kept: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
    """The mel [B, n, T, M] to which the flow carries noise [B, n, T, M], and the new `kept` [evaluations, …]. `table`:
    of the `times` of as many steps as the solver takes.

    One scan over all evaluations; `kept` is part of its carry, so that a donated one is written in place.
    """
    count = table.steps
    steps = np.repeat(np.diff(knots(count)), STAGES)
    stages = np.tile(np.arange(STAGES), count)
    moments = 3 * np.repeat(np.arange(count), STAGES) + stages

    def evaluate(carry, scanned):
        x, slopes, kept = carry
        index, step, stage, moment = scanned
        along = lambda coefficients: x + step * jnp.tensordot(coefficients, slopes, 1)
        before = None if kept is None else kept[index]
        slope, new = model(along(jnp.asarray(_SLOPES)[stage]), given, jax.tree.map(lambda w: w[moment], table), view,
                           before)
        slopes = slopes.at[stage].set(slope)
        x = jnp.where(stage == STAGES - 1, x + step * jnp.tensordot(_WEIGHTS, slopes, 1), x)
        return (x, slopes, None if kept is None else kept.at[index].set(new)), None

    start = noise, jnp.zeros((STAGES, *noise.shape), noise.dtype), kept
    scanned = np.arange(count * STAGES), steps, stages, moments
    (mel, _, kept), _ = jax.lax.scan(evaluate, start, scanned)
    return constrain(mel, "batch", None, None, None), None if kept is None else _laid_out(kept)


def _laid_out(kept: jax.Array) -> jax.Array:
    """One layout wherever it is made: another would compile the next chunk's solve anew."""
    return constrain(kept, None, None, None, "batch", None, "heads", None)


def _modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Layer norm without weights of its own, its statistics in float32, scaled and shifted."""
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(axis=-1, keepdims=True) + EPS)
    return y.astype(x.dtype) * (1 + scale) + shift


def _turn_first_head(x: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
    """x [R, n, T, N, H]. Only head 0 is turned, as the network was trained; pair i is (x[2 i], x[2 i + 1])."""
    (cos, sin), whole = turn, on_one_device()
    h = x[..., :1, :] if whole else x  # over a mesh all are turned: one of a split axis would have to be sent around
    partner = jnp.where(np.arange(x.shape[-1]) % 2 == 0, jnp.roll(h, -1, -1), jnp.roll(h, 1, -1))
    turned = (h * cos + partner * sin).astype(x.dtype)
    if whole:
        return jnp.concatenate([turned, x[..., 1:, :]], axis=-2)
    return jnp.where(np.arange(x.shape[-2])[:, None] == 0, turned, x)


def _neighbours(k: jax.Array, v: jax.Array, looks: str, kept: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Keys and values [R, n, T or 2 T, N, H] that the queries of each block see."""
    if looks == "own":
        return k, v
    if looks == "ahead":
        return tuple(jnp.concatenate([x, jnp.roll(x, -1, axis=1)], axis=2) for x in (k, v))
    if kept is None:
        return tuple(jnp.concatenate([jnp.roll(x, 1, axis=1), x], axis=2) for x in (k, v))
    return tuple(jnp.concatenate([jnp.concatenate([old[:, None], x[:, :-1]], axis=1), x], axis=2)
                 for x, old in zip((k, v), kept, strict=True))
