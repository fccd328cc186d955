"""Small parts that every network shares. A weight is one line: shape, logical axes, initialiser.

Weights keep the [out, in] order of the published checkpoints (with head axes split out), so importing one is at most
a reshape and never a transpose; for one row at a time it is also the order that a CPU reads fastest.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from omni_jax.models import kernels
from omni_jax.sharding import on_one_device


def param(rngs: nnx.Rngs, init: Any, shape: tuple[int, ...], axes: tuple[str | None, ...], dtype: Any) -> nnx.Param:
    """One weight with its logical axes (see `omni_jax.sharding.RULES`)."""
    return nnx.Param(nnx.with_partitioning(init, axes)(rngs.params(), shape, dtype))


class Linear(nnx.Module):
    """x [..., *inputs] -> [..., *outputs]; weight [*outputs, *inputs]. `axes` names outputs, then inputs."""

    def __init__(self, rngs: nnx.Rngs, inputs: tuple[int, ...], outputs: tuple[int, ...], axes: tuple, dtype: Any,
                 bias: bool = False):
        fan_in = math.prod(inputs)
        self.contracted = len(inputs)
        self.weight = param(rngs, initializers.normal(fan_in**-0.5), (*outputs, *inputs), axes, dtype)
        if bias:
            axes = tuple("norm" if axis == "embed" else axis for axis in axes[: len(outputs)])
            self.bias = param(rngs, initializers.zeros, outputs, axes, dtype)

    def __call__(self, x: jax.Array, preferred: Any = None) -> jax.Array:
        y = product(x, self.weight[...], self.contracted, preferred)
        y = y + self.bias[...] if hasattr(self, "bias") else y
        return y + self.lora(x, preferred) if hasattr(self, "lora") else y


class Lora(nnx.Module):
    """A low-rank addition to a Linear, kept as its attribute `lora`: x -> scale * b (a x); a [rank, *inputs],
    b [*outputs, rank]. Where the weight of the Linear is a stack of layers, so are these.

    Source: Hu et al., 2021, section 4.1 (scale is alpha / rank). What a and b start from: training.lora.fresh.
    """

    def __init__(self, linear: Linear, rank: int, scale: float):
        weight, self.scale, self.contracted = linear.weight, scale, linear.contracted
        axes, zeros, rngs = weight.get_metadata()["out_sharding"], initializers.zeros, nnx.Rngs(0)
        stacked, outputs = int(axes[0] == "layers"), weight.ndim - self.contracted
        split = lambda values: (values[:stacked], values[stacked:outputs], values[outputs:])
        (layers, outs, ins), (layers_axes, outs_axes, ins_axes) = split(weight.shape), split(axes)
        self.a = param(rngs, zeros, (*layers, rank, *ins), (*layers_axes, None, *ins_axes), weight.dtype)
        self.b = param(rngs, zeros, (*layers, *outs, rank), (*layers_axes, *outs_axes, None), weight.dtype)

    def __call__(self, x: jax.Array, preferred: Any = None) -> jax.Array:
        return product(product(x, self.a[...], self.contracted), self.b[...], 1, preferred) * self.scale


def product(x: jax.Array, weight: jax.Array, contracted: int, preferred: Any = None) -> jax.Array:
    """x [..., *inputs], weight [*outputs, *inputs] -> [..., *outputs] in the dtype `preferred`, over the last
    `contracted` axes of both."""
    n = contracted
    batch, outputs = x.shape[: x.ndim - n], weight.shape[: weight.ndim - n]
    if on_one_device():
        # As matrices: with head axes apart, XLA transposes the whole weight at every call on a CPU. (On a mesh
        # the merged axis could not be split as the two are.)
        x, weight, n = x.reshape(*batch, -1), weight.reshape(math.prod(outputs), -1), 1
    dims = (tuple(range(x.ndim - n, x.ndim)), tuple(range(weight.ndim - n, weight.ndim)))
    if weight.dtype == jnp.bfloat16 and kernels.platform() == "cpu":
        y = _widened_product(x, weight, n).astype(preferred or x.dtype)
    else:
        y = jax.lax.dot_general(x, weight, (dims, ((), ())), preferred_element_type=preferred)
    return y.reshape(*batch, *outputs)


def _widened_product(x: jax.Array, weight: jax.Array, contracted: int) -> jax.Array:
    """x [..., *inputs] and bfloat16 weight [*outputs, *inputs] -> float32 [..., *outputs], for CPUs.

    There XLA has a kernel of bfloat16 matrices with a float32 result and at least two rows; anything else it computes
    from a float32 copy of the whole weight, made at every call.
    """
    batch, outputs = x.shape[: x.ndim - contracted], weight.shape[: weight.ndim - contracted]
    rows = x.reshape(math.prod(batch), -1)
    rows = jnp.pad(rows, ((0, max(0, 8 - len(rows))), (0, 0)))
    y = jax.lax.dot_general(rows, weight.reshape(-1, rows.shape[1]), (((1,), (1,)), ((), ())),
                            preferred_element_type=jnp.float32)
    return y[: math.prod(batch)].reshape(*batch, *outputs)


class Embedding(nnx.Module):
    """A table [V, D], read by token and, where the head is tied, multiplied to logits."""

    def __init__(self, rngs: nnx.Rngs, size: int, width: int, dtype: Any):
        self.weight = param(rngs, initializers.normal(1.0), (size, width), ("vocab", "embed"), dtype)

    def __call__(self, token_ids: jax.Array) -> jax.Array:
        # Tied to the tokens: else a CPU lifts a float32 copy of a whole bfloat16 table out of the decode loop.
        table, token_ids = jax.lax.optimization_barrier((self.weight[...], token_ids))
        if token_ids.size > 1 or on_one_device():
            return table[token_ids]
        # XLA makes a slice of the look-up of one row, for which GPUs would gather the whole of a split table.
        return table[jnp.tile(token_ids.reshape(1), 2)][:1].reshape(*token_ids.shape, -1)


def logits(head: Linear | Embedding, hidden: jax.Array) -> jax.Array:
    """hidden [..., D] -> float32 [..., V], by a head of its own or by the table of the embeddings."""
    if isinstance(head, Linear):
        return head(hidden, preferred=jnp.float32)
    return jnp.einsum("...d,vd->...v", hidden, head.weight[...], preferred_element_type=jnp.float32)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis; statistics in float32, the scale in the weight's dtype."""

    def __init__(self, rngs: nnx.Rngs, width: int, eps: float, dtype: Any):
        self.eps = eps
        self.scale = param(rngs, initializers.ones, (width,), ("norm",), dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return self.scale[...] * y.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, in float32."""

    def __init__(self, rngs: nnx.Rngs, width: int, eps: float, dtype: Any):
        self.eps = eps
        self.scale = param(rngs, initializers.ones, (width,), ("norm",), dtype)
        self.bias = param(rngs, initializers.zeros, (width,), ("norm",), dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class Conv1d(nnx.Module):
    """Convolution over time of x [B, T, inputs]; weight [out, in, taps]. Unless x comes padded, zeros at both ends keep
    its length (a `stride` divides it)."""

    def __init__(self, rngs: nnx.Rngs, inputs: int, outputs: int, taps: int, stride: int, dtype: Any,
                 dilation: int = 1, bias: bool = True):
        self.stride, self.dilation = stride, dilation
        self.reach = dilation * (taps - 1) // 2
        self.weight = param(rngs, initializers.normal((inputs * taps) ** -0.5), (outputs, inputs, taps),
                            ("embed", "conv_in", None), dtype)
        if bias:
            self.bias = param(rngs, initializers.zeros, (outputs,), ("norm",), dtype)

    def __call__(self, x: jax.Array, padded: bool = False) -> jax.Array:
        pad = 0 if padded else self.reach
        y = jax.lax.conv_general_dilated(x, self.weight[...], (self.stride,), ((pad, pad),),
                                         rhs_dilation=(self.dilation,), dimension_numbers=("NHC", "OIH", "NHC"))
        return y + self.bias[...] if hasattr(self, "bias") else y


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, computed in float32: bfloat16 would lose three bits in its error function."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) * up(x)): the feed-forward part of the decoder and of the vision tower."""

    def __init__(self, rngs: nnx.Rngs, width: int, hidden: int, dtype: Any, bias: bool = False):
        self.gate = Linear(rngs, (width,), (hidden,), ("mlp", "embed"), dtype, bias)
        self.up = Linear(rngs, (width,), (hidden,), ("mlp", "embed"), dtype, bias)
        self.down = Linear(rngs, (hidden,), (width,), ("embed", "mlp"), dtype, bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def stack(layer: type, rngs: nnx.Rngs, count: int, *args: Any, scanned: bool = True) -> nnx.Module:
    """`count` layers for `each`: their weights stacked on a leading axis, or (not scanned) a list of layers."""
    if not scanned:
        return nnx.List([layer(rngs, *args) for _ in range(count)])
    build = nnx.vmap(lambda keys: layer(keys, *args), in_axes=0, out_axes=0,
                     transform_metadata={nnx.PARTITION_NAME: "layers"})
    return build(rngs.split(count))


def each(layers: nnx.Module, count: int, step: Callable, carry: Any, remat: str = "none") -> Any:
    """carry = step(layer, index, carry) for each of `count` layers: one scan, or unrolled for a list of layers.

    A scan compiles one layer, but CPUs and GPUs copy each layer's weights out of the stack before they multiply,
    which costs a decode step two to three times its time. (TPUs read them in place.) remat: what a backward pass
    computes again, layer by layer: "none", "dots" (all but products of weights and, on TPU, attention) or "full" (all).
    """
    if isinstance(layers, nnx.List):
        for index, layer in enumerate(layers):
            graphdef, weights = nnx.split(layer)
            body = lambda weights, carry, graphdef=graphdef, index=index: step(nnx.merge(graphdef, weights), index,
                                                                               carry)
            carry = _rematerialized(body, remat, in_loop=False)(weights, carry)
        return carry
    graphdef, weights = nnx.split(layers)
    body = lambda carry, scanned: (step(nnx.merge(graphdef, scanned[0]), scanned[1], carry), None)
    return jax.lax.scan(_rematerialized(body, remat, in_loop=True), carry, (weights, jnp.arange(count)))[0]


def _rematerialized(body: Callable, remat: str, in_loop: bool) -> Callable:
    if remat == "none":
        return body
    policies = jax.checkpoint_policies
    dots = policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable,
                                            policies.save_only_these_names(kernels.SAVED))
    policy = {"dots": dots, "full": None}[remat]
    # A loop of its own keeps XLA from merging both computations; without one it must be told.
    return jax.checkpoint(body, policy=policy, prevent_cse=not in_loop)
