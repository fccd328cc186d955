"""What kernels cost that XLA knows nothing of: what they say themselves, or what their algorithm does."""

import math
import re
from typing import NamedTuple

from tools._hlo_text import Computation, Instruction

# Matrix products in splash attention's kernels (JAX 0.10.2).
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


class Estimate(NamedTuple):
    flops: float = 0.0
    bytes: float = 0.0


def estimate(where: Computation, instruction: Instruction) -> Estimate:
    """Of a custom call; zeros if nothing is known."""
    name = re.match(r"splash_mha_(fwd|dq|dkv)", instruction.name)
    if name and instruction.opcode == "custom-call":
        return _splash(where, instruction, SPLASH[name.group()])
    said = lambda what: re.search(rf'"cost_estimate":\s*\{{[^}}]*"{what}":\s*"?(\d+)', instruction.attributes)
    return Estimate(*(float(found.group(1)) if (found := said(what)) else 0.0 for what in ("flops", "bytes_accessed")))


def _splash(where: Computation, instruction: Instruction, products: int) -> Estimate:
    """Causal attention of a device's queries, the last of the row where they are split, in blocks on and below the
    diagonal: each brings two arrays (keys and values, or queries and gradients) from memory for every query head."""
    queries, keys = (where.instructions[name].leaves[0] for name in instruction.operands[2:4])
    *heads, T, H = queries.dims
    block = int(re.search(r'block_q\w*\W+(\d+)', instruction.attributes).group(1))
    pairs = math.prod(heads) * T * (keys.dims[-2] - (T - block) / 2)
    return Estimate(2 * products * pairs * H, 2 * pairs / block * H * queries.bytes / queries.size)
