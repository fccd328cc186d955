"""Fused attention kernels, by the platform of the mesh in context, each device computing its own heads and queries.

TPU: `flash.flash`, and for packed rows JAX's splash attention, which has a backward pass. NVIDIA GPUs in 16 bits:
cuDNN's, which also decodes without a transposed copy of the cache. They compute what `attention` says; it falls back on
plain XLA where no kernel is chosen.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.models import flash
from omni_jax.sharding import resolve

# Up to so many numbers a mask goes to cuDNN as a bias; beyond, keys that nobody may see are moved behind the others.
MAX_BIAS = 1 << 25
SPLASH_BLOCK = 512  # queries and keys that splash attention takes at once, at most
LANES = 128  # of a TPU: its smallest block, and what its heads must be a multiple of
SAVED = "attention"  # what layers.each keeps of splash attention when it keeps products: its output and normalisers


class Split(NamedTuple):
    """The mesh axes of rows of the batch, of queries and of heads; None: every device has all."""

    batch: str | tuple | None
    queries: tuple | None
    heads: str | None


def split(q: jax.Array, k: jax.Array, rows: str) -> Split:
    """For q [B, T, N, H], k [B, K, S, H] and the logical axis of B. Queries take what rows and heads leave."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return Split(None, None, None)
    batch, heads = resolve((rows, "kv_heads"), k.shape[:2], mesh)
    used = {name for axes in (batch, heads) if axes for name in ([axes] if isinstance(axes, str) else axes)}
    spare = tuple(name for name, size in mesh.shape.items() if size > 1 and name not in used)
    divides = spare and q.shape[1] % (_ways(spare) * flash.FEWEST_TOKENS) == 0
    return Split(batch, spare if divides else None, heads)


def platform() -> str:
    """Of the mesh in context, whose chips may be absent (compiled for only); else of JAX's default backend."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def choose(q: jax.Array, k: jax.Array, mask: jax.Array, causal: bool, split: Split) -> str:
    """"flash", "cudnn" or "" (plain XLA) for the arguments of `attention.attend`; causal: whether that is given."""
    T, N, (K, S) = q.shape[1], q.shape[2], k.shape[1:3]
    where, sixteen_bits = platform(), q.dtype in (jnp.bfloat16, jnp.float16)
    if where == "tpu" and (causal or mask.shape[1] == 1):
        queries, heads = _ways(split.queries), _ways(split.heads)
        return "flash" if flash.blocks(T // queries, N // heads, K // heads, S) else ""
    # On other makers' GPUs the platform is named alike, and there is no cuDNN.
    return "cudnn" if where == "gpu" and sixteen_bits and q.shape[-1] % 8 == 0 and _nvidia() else ""


def choose_packed(q: jax.Array, split: Split) -> str:
    """"splash", "cudnn" or "" (plain XLA) for the queries of `attention.attend_packed`."""
    T, H = q.shape[1], q.shape[3]
    if platform() == "tpu":
        return "splash" if T % (_ways(split.queries) * LANES) == 0 and H % LANES == 0 else ""
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and H % 8 == 0 and T % 2 == 0
    return "cudnn" if platform() == "gpu" and fits and _nvidia() else ""


def _nvidia() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    device = jax.devices()[0] if mesh.empty else mesh.abstract_device
    return "NVIDIA" in device.device_kind


def by_flash(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array, slot: jax.Array, split: Split) -> jax.Array:
    """Query i looks at the slots of valid bool [B, S] up to slot + i."""

    def own(q, k, v, valid, slot):
        first = jax.lax.axis_index(split.queries) * q.shape[1] if split.queries else 0
        return flash.flash(q, k, v, valid, slot + first)

    return _each_device(own, split, PartitionSpec(split.batch, None), PartitionSpec())(q, k, v, valid, slot)


def by_splash(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, split: Split,
              interpret: bool = False) -> jax.Array:
    """segments int32 [B, T] as in `attention.attend_packed`; T and H as `choose_packed` wants them."""
    T, heads = q.shape[1], q.shape[2] // _ways(split.heads)
    ways = _ways(split.queries)
    block = math.gcd(T // ways, SPLASH_BLOCK)
    sizes = splash.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
                              block_kv_dq=block)
    causal = splash_mask.MultiHeadMask([splash_mask.CausalMask((T, T), shard_count=ways)] * heads)
    kernel = splash.make_splash_mha(causal, block_sizes=sizes, head_shards=1, q_seq_shards=ways,
                                    residual_checkpoint_name=SAVED, interpret=interpret)

    def own(q, k, v, own_segments, segments, kernel):
        q = jnp.swapaxes(q * jnp.asarray(q.shape[3]**-0.5, q.dtype), 1, 2)
        return jnp.swapaxes(jax.vmap(kernel)(q, k, v, splash.SegmentIds(own_segments, segments)), 1, 2)

    mesh = jax.sharding.get_abstract_mesh()
    parts = None if mesh.empty else kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, split.queries)))
    of_rows = (PartitionSpec(split.batch, split.queries), PartitionSpec(split.batch, None))
    return _each_device(own, split, *of_rows, parts)(q, k, v, segments, segments, kernel)


def packed_by_cudnn(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, split: Split) -> jax.Array:
    """segments int32 [B, T] as in `attention.attend_packed`."""
    # cuDNN's own packed rows take the offsets of keys by the query heads' width (JAX 0.10.2): wrong for grouped heads.
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    def own(q, k, v, own_segments, segments):
        mask = own_segments[:, None, :, None] == segments[:, None, None]
        if split.queries:  # cuDNN counts queries from 0
            first = jax.lax.axis_index(split.queries) * q.shape[1]
            mask &= jnp.arange(k.shape[2]) <= first + jnp.arange(q.shape[1])[:, None]
        out = dot_product_attention(jnp.swapaxes(q, 1, 2), k, v, mask=mask, scale=q.shape[3]**-0.5, qkv_layout="BNTH",
                                    mask_type=MaskType.NO_MASK if split.queries else MaskType.CAUSAL)
        return jnp.swapaxes(out, 1, 2)

    of_rows = (PartitionSpec(split.batch, split.queries), PartitionSpec(split.batch, None))
    return _each_device(own, split, *of_rows)(q, k, v, segments, segments)


def by_cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, split: Split) -> jax.Array:
    """mask as in `attention.attend`."""
    of_mask = PartitionSpec(split.batch, split.queries if mask.shape[1] > 1 else None, None)
    return _each_device(_cudnn, split, of_mask)(q, k, v, mask)


def _cudnn(q, k, v, mask):
    # The public jax.nn.dot_product_attention has no [B, K, S, H]: it would transpose the cache at every layer.
    from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

    B, T, _, H = q.shape
    S = k.shape[2]
    bias = lengths = None
    if mask.shape[1] == T or T * S <= MAX_BIAS:
        bias = jnp.broadcast_to(mask, (B, T, S))[:, None]
    else:  # softmax does not mind the keys' order
        seen = mask[:, 0]
        order = jnp.argsort(~seen, axis=1, stable=True)[:, None, :, None]
        k, v = (jnp.take_along_axis(x, order, axis=2) for x in (k, v))
        lengths = seen.sum(1, dtype=jnp.int32)
    out = dot_product_attention(
        jnp.swapaxes(q, 1, 2), k, v, mask=bias, scale=H**-0.5, qkv_layout="BNTH",
        q_seqlen=None if lengths is None else jnp.full(B, T, jnp.int32), kv_seqlen=lengths,
        mask_type=MaskType.NO_MASK if lengths is None else MaskType.PADDING)
    return jnp.swapaxes(out, 1, 2)


def _ways(axes: str | tuple | None) -> int:
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in ([axes] if isinstance(axes, str) else axes or ()))


def _each_device(kernel: Callable, split: Split, *others: PartitionSpec) -> Callable:
    """`kernel` of q, k, v and others on each device's part; XLA cannot split a kernel by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel
    queries, slots = PartitionSpec(*split, None), PartitionSpec(split.batch, split.heads, None, None)
    return jax.shard_map(kernel, mesh=mesh, in_specs=(queries, slots, slots, *others), out_specs=queries,
                         check_vma=False)
