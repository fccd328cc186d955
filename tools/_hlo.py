"""Counts what an optimised HLO module does: FLOPs, bytes to and from memory, collectives, kernels.

XLA's own cost analysis counts the body of a loop once. Here a loop counts as often as it runs: its trip count stands
in the text (CPU, GPU) or follows from its condition (TPU). Other rules are XLA's: a fusion reads only those parts of
its operands that it slices, an update in place writes only the new part, and matrix products count by what they
multiply, padding of windows left out. Only main memory counts, not the TPU's on-chip memories (`S(n)` in a layout).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from tools._hlo_kernels import estimate
from tools._hlo_text import Computation, Instruction, Leaf, parse

_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id",
         "opt-barrier", "add-dependency", "domain", "iota"}
_SAME_ELEMENTS = {"bitcast", "reshape", "transpose", "copy", "convert", "reverse", "negate"}
_MOVES = _FREE | {"copy", "reshape", "transpose", "broadcast", "convert", "slice", "dynamic-slice", "reverse",
                  "dynamic-update-slice", "concatenate", "pad", "gather", "select", "copy-start", "copy-done"}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
                "ragged-all-to-all", "collective-broadcast")


@dataclasses.dataclass
class Cost:
    """What a module does on one device. `wire`: bytes that a device sends by ring algorithms."""

    flops: float = 0.0
    exact: float = 0.0  # of these, float32 products at Precision.HIGHEST, which no bfloat16 unit does in one pass
    bytes: float = 0.0
    wire: float = 0.0
    collectives: float = 0.0
    kernels: float = 0.0
    loop: "Cost | None" = None  # one turn of a loop that ends by what it computes; it is counted once
    by_collective: dict[str, float] = dataclasses.field(default_factory=dict)  # "all-reduce f32[4,7]" -> wire bytes
    heaviest: list[tuple[float, float, str]] = dataclasses.field(default_factory=list)  # (bytes, flops, what)

    def add(self, other: "Cost", times: float) -> None:
        for name in ("flops", "exact", "bytes", "wire", "collectives", "kernels"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        self.loop = self.loop or other.loop
        for kind, wire in other.by_collective.items():
            self.by_collective[kind] = self.by_collective.get(kind, 0.0) + times * wire
        self.heaviest += [(times * moved, times * flops, what) for moved, flops, what in other.heaviest]


def account(text: str, branches: Sequence[float] | None = None, turns: Sequence[int] = ()) -> Cost:
    """The cost of a module given as text (`compiled.as_text()`).

    branches: how often each branch of a conditional is taken, as fractions; without it each counts as the dearest.
    turns: of each of the program's own loops that end by what they compute, in their order; left out, one turn.
    """
    module = Module(text, branches, turns)
    cost = module.cost(module.entry)
    alike: dict[str, tuple[float, float]] = {}  # layers that are not scanned have the same kernels many times
    for moved, flops, what in cost.heaviest:
        before = alike.get(what, (0.0, 0.0))
        alike[what] = (before[0] + moved, before[1] + flops)
    cost.heaviest = sorted(((moved, flops, what) for what, (moved, flops) in alike.items()), reverse=True)
    return cost


class Module:
    """The computations of a module by name."""

    def __init__(self, text: str, branches: Sequence[float] | None = None, turns: Sequence[int] = ()):
        self.computations, self.entry = parse(text)
        self.branches, self._turns = branches, iter(turns)
        self._costs: dict[str, Cost] = {}

    def cost(self, name: str) -> Cost:
        """Of a computation whose instructions are run one by one (the entry, a loop's body)."""
        if name not in self._costs:
            total, where = Cost(), self.computations[name]
            for instruction in where.instructions.values():
                self._add(total, where, instruction)
            self._add_fused_collectives(total, where)
            self._costs[name] = total
        return self._costs[name]

    def _add(self, total: Cost, where: Computation, instruction: Instruction) -> None:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            return
        if opcode == "while":
            trips = self._trips(where, instruction)
            turn = self.cost(instruction.called("body"))
            if trips is not None:
                total.add(turn, trips)
            elif times := next(self._turns, 1) if where is self.computations[self.entry] else 1:
                total.add(turn, times)
                total.loop = turn
        elif opcode == "conditional":
            self._add_branches(total, instruction)
        elif opcode in ("call", "async-start"):
            total.add(self.cost(instruction.called("to_apply") or instruction.called("calls")), 1)
        elif not instruction.leaves or any(leaf.space != 6 for leaf in instruction.leaves):  # 6: the scalar unit's
            self._add_kernel(total, where, instruction)

    def _add_branches(self, total: Cost, instruction: Instruction) -> None:
        listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
        names = (re.findall(r"%?([\w.\-]+)", listed.group(1)) if listed else
                 [instruction.called("false_computation"), instruction.called("true_computation")])
        costs = [self.cost(name) for name in names]
        if self.branches and len(self.branches) == len(costs):
            for cost, share in zip(costs, self.branches, strict=True):
                total.add(cost, share)
        else:
            total.add(max(costs, key=lambda cost: (cost.bytes, cost.flops)), 1)

    def _add_kernel(self, total: Cost, where: Computation, instruction: Instruction) -> None:
        moved = self._read(where, instruction) + self._written(where, instruction)
        if all(leaf.space == 0 for name in instruction.operands for leaf in where.instructions[name].leaves):
            moved = max(moved, estimate(where, instruction).bytes)  # a kernel may read an operand several times
        flops = self._flops(where, instruction)
        kind = _collective(instruction)
        what = f"{instruction.opcode} {_shape(instruction)} {_origin(instruction)}"
        exact = self._flops(where, instruction, exact=True)
        total.add(Cost(flops, exact, moved, kernels=not kind, heaviest=[(moved, flops, what)]), 1)
        if kind:
            total.add(_wire(kind, where, instruction), 1)

    def _add_fused_collectives(self, total: Cost, where: Computation) -> None:
        """A TPU overlaps a collective with products by splitting it over fusions, each with the same channel."""
        seen = set()
        for fusion in where.instructions.values():
            if fusion.opcode != "fusion":
                continue
            inner = self.computations[fusion.called("calls")]
            for each in inner.instructions.values():
                kind, channel = _collective(each), re.search(r"channel_id=(\d+)", each.attributes)
                if kind and channel and channel.group(1) not in seen:
                    seen.add(channel.group(1))
                    scatter = kind == "all-reduce" and fusion.called("calls").startswith("all-reduce-scatter")
                    total.add(_wire("reduce-scatter" if scatter else kind, inner, each), 1)

    # Bytes.

    def _read(self, where: Computation, instruction: Instruction) -> float:
        total = 0.0
        for name in dict.fromkeys(instruction.operands):
            source = where.instructions[name]
            leaves = [leaf for leaf in source.leaves if leaf.space == 0]
            if source.opcode in ("after-all", "constant") or not leaves:
                continue
            if len(source.leaves) == 1:
                leaf = leaves[0]
                total += min(leaf.size, self._used(where, name, instruction)) * leaf.bytes / max(leaf.size, 1)
            else:
                total += sum(leaf.bytes for leaf in leaves)
        return total

    def _used(self, where: Computation, name: str, by: Instruction) -> float:
        """How many elements of the value `name` the instruction `by` reads."""
        whole = where.instructions[name].size
        first = bool(by.operands) and by.operands[0] == name
        if by.opcode in ("slice", "dynamic-slice", "gather") and first:
            return by.size
        if by.opcode == "slice-start":  # (operand, result, ...)
            return by.leaves[1].size
        if by.opcode == "dynamic-update-slice" and first:
            return 0
        if by.opcode == "scatter" and first:
            return where.instructions[by.operands[2]].size
        if by.opcode == "fusion":
            inner = self.computations[by.called("calls")]
            return sum(self._used_inside(inner, inner.parameters[i]) for i, operand in enumerate(by.operands)
                       if operand == name)
        return whole

    def _used_inside(self, inner: Computation, name: str) -> float:
        """How many elements of the value `name` a fused computation reads."""
        total = 0.0
        for user in inner.users[name]:
            if user.opcode in _SAME_ELEMENTS and user.name != inner.root:
                total += self._used_inside(inner, user.name)
            elif user.opcode == "tuple" and user.name == inner.root:
                continue
            else:
                total += self._used(inner, name, user)
        return min(total, inner.instructions[name].size)

    def _written(self, where: Computation, instruction: Instruction) -> float:
        leaves, sizes = instruction.leaves, [math.inf] * len(instruction.leaves)
        if instruction.opcode.endswith("-start") and len(leaves) > 1:  # (operand, result, ...); copy: (result, operand)
            leaves = leaves[:1] if instruction.opcode == "copy-start" else leaves[1:2]
        elif "__cu" in instruction.attributes and instruction.opcode == "custom-call":
            leaves = leaves[:1]  # the rest is work space
        elif instruction.opcode in ("dynamic-update-slice", "scatter"):
            sizes = [self._update_size(where, instruction.name)]
        elif instruction.opcode == "fusion":
            sizes = self._new_elements(instruction)
        return sum(min(size, leaf.size) * leaf.bytes / max(leaf.size, 1)
                   for size, leaf in zip(sizes, leaves, strict=False) if leaf.space == 0)

    def _new_elements(self, fusion: Instruction) -> list[float]:
        """Elements that a fusion writes of each result: of an update in place, the update only."""
        inner = self.computations[fusion.called("calls")]
        root = inner.instructions[inner.root]
        names = root.operands if root.opcode == "tuple" else (root.name,)
        sizes = [self._update_size(inner, name) for name in names]
        return sizes if len(sizes) == len(fusion.leaves) else [math.inf] * len(fusion.leaves)

    def _update_size(self, inner: Computation, name: str) -> float:
        node = inner.instructions[name]
        while node.opcode in ("bitcast", "copy", "convert") and node.operands:
            node = inner.instructions[node.operands[0]]
        if node.opcode in ("dynamic-update-slice", "scatter"):
            return inner.instructions[node.operands[1 if node.opcode == "dynamic-update-slice" else 2]].size
        if node.opcode == "fusion" and len(node.leaves) == 1:
            return self._new_elements(node)[0]
        return math.inf

    # FLOPs.

    def _flops(self, where: Computation, instruction: Instruction, exact: bool = False) -> float:
        opcode = instruction.opcode
        if opcode == "fusion":
            inner = self.computations[instruction.called("calls")]
            return sum(self._flops(inner, each, exact) for each in inner.instructions.values())
        if exact and not _is_exact(where, instruction):
            return 0.0
        if opcode == "dot":
            left = where.instructions[instruction.operands[0]].leaves[0].dims
            contracted = _numbers(instruction.attributes, "lhs_contracting_dims")
            return 2.0 * instruction.size * math.prod(left[i] for i in contracted)
        if opcode == "convolution":
            return _convolution_flops(where, instruction)
        if opcode == "custom-call":
            return _custom_flops(where, instruction)
        if opcode in ("reduce", "reduce-window"):
            return float(sum(where.instructions[name].size for name in instruction.operands[:1]))
        return 0.0 if opcode in _MOVES or opcode.startswith(_COLLECTIVES) else float(instruction.size)

    def _trips(self, where: Computation, loop: Instruction) -> int | None:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations[loop.called("condition")]
        test = condition.instructions[condition.root]
        start = where.instructions[loop.operands[0]]
        if test.opcode == "fusion":  # TPU and CPU may wrap the comparison
            return None
        ends = [self._constant(condition, name, where, start) for name in test.operands]
        if test.opcode != "compare" or "direction=LT" not in test.attributes or None in ends:
            return None
        return -(-(ends[1] - ends[0]) // self._stride(loop, condition.instructions[test.operands[0]]))

    def _stride(self, loop: Instruction, counter: Instruction) -> int:
        """What a turn adds to the loop's counter: more than 1 where XLA has unrolled it."""
        body = self.computations[loop.called("body")]
        root, place = body.instructions[body.root], re.search(r"index=(\d+)", counter.attributes)
        if root.opcode != "tuple" or not place:
            return 1
        added = body.instructions[root.operands[int(place.group(1))]]
        amounts = [body.instructions[name] for name in added.operands if added.opcode == "add"]
        return next((int(each.inside) for each in amounts if each.opcode == "constant"), 1)

    def _constant(self, inner: Computation, name: str, outer: Computation, start: Instruction) -> int | None:
        """The value of a scalar in a loop's condition before the loop's first turn, if it is a constant."""
        node, where = inner.instructions[name], inner
        for _ in range(8):
            if node.opcode == "constant":
                return int(node.inside) if re.fullmatch(r"-?\d+", node.inside) else None
            if node.opcode == "get-tuple-element" and where is inner and start.opcode == "tuple":
                index = int(re.search(r"index=(\d+)", node.attributes).group(1))
                node, where = outer.instructions[start.operands[index]], outer
            elif node.opcode in ("copy", "bitcast") and node.operands:
                node = where.instructions[node.operands[0]]
            else:
                return None
        return None


def _collective(instruction: Instruction) -> str | None:
    return next((kind for kind in _COLLECTIVES if instruction.opcode.startswith(kind)), None)


def _wire(kind: str, where: Computation, instruction: Instruction) -> Cost:
    """A collective over groups of g devices: bytes that one device sends by ring algorithms."""
    g = _group(instruction.attributes)
    operands = sum(leaf.bytes for name in instruction.operands for leaf in where.instructions[name].leaves)
    factor = {"all-reduce": 2 * (g - 1) / g, "all-gather": g - 1.0, "reduce-scatter": (g - 1) / g,
              "all-to-all": (g - 1) / g}.get(kind, 1.0)
    wire = operands * factor
    return Cost(wire=wire, collectives=1, by_collective={f"{kind} {_shape(instruction)}": wire})


def _group(attributes: str) -> int:
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named.group(2)))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes)
    if iota:
        return int(iota.group(2))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(listed.group(1).split(",")) if listed else 2


def _is_exact(where: Computation, instruction: Instruction) -> bool:
    """Whether this is a product of float32 numbers at Precision.HIGHEST."""
    precision = re.search(r'operand_precision"?[=:]\s*[{\[]([^}\]]*)', instruction.attributes)
    if instruction.opcode not in ("dot", "convolution", "custom-call") or not precision:
        return False
    kinds = {leaf.kind for name in instruction.operands[:2] for leaf in where.instructions[name].leaves}
    return "highest" in precision.group(1).lower() and kinds == {"f32"}


def _convolution_flops(where: Computation, instruction: Instruction) -> float:
    """Twice the products of real elements: a TPU writes batched matrix products as dilated, padded convolutions."""
    left, right = (where.instructions[name].leaves[0].dims for name in instruction.operands[:2])
    _, kernel, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes).groups()
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    lhs = re.search(r"dim_labels=(\w+)_", instruction.attributes).group(1)
    spatial = [label for label in out if label.isdigit()]
    window = _window(instruction.attributes, len(spatial))
    result = instruction.leaves[0].dims
    pairs = math.prod(_taps(left[lhs.index(d)], right[kernel.index(d)], result[out.index(d)], *window[i])
                      for i, d in enumerate(spatial))
    features = result[out.index("b")] * result[out.index("f")] * right[kernel.index("i")]
    return 2.0 * pairs * features / (int(groups.group(1)) if groups else 1)


def _window(attributes: str, dims: int) -> list[tuple[int, int, int, int]]:
    """(stride, low padding, base dilation, window dilation) of each spatial dimension."""
    text = (re.search(r"window=\{([^}]*)\}", attributes) or [None, ""])[1]
    field = lambda key, default: (re.search(rf"\b{key}=([\w\-]+)", text) or [None, "x".join([default] * dims)])[1]
    low = [part.split("_")[0] for part in field("pad", "0_0").split("x")]
    columns = [field("stride", "1").split("x"), low, field("lhs_dilate", "1").split("x"),
               field("rhs_dilate", "1").split("x")]
    return [tuple(int(column[i]) for column in columns) for i in range(dims)]


@functools.cache
def _taps(size: int, taps: int, result: int, stride: int, low: int, base: int, dilation: int) -> int:
    """Pairs of an output place and a tap that meet a real element of the input."""
    total = 0
    for tap in range(taps):
        place = np.arange(result, dtype=np.int64) * stride + tap * dilation - low
        total += int(((place >= 0) & (place % base == 0) & (place < (size - 1) * base + 1)).sum())
    return total


def _custom_flops(where: Computation, instruction: Instruction) -> float:
    """Of library calls: cuBLAS products, cuDNN convolutions and attention, kernels with an estimate of their own."""
    attributes = instruction.attributes
    if flops := estimate(where, instruction).flops:
        return flops
    if "dim_labels" in attributes:
        return _convolution_flops(where, instruction)
    scores = re.search(r'"intermediate_tensor_shape":\s*\{[^}]*?"dimensions":\s*\[([^\]]*)\]', attributes)
    if scores:  # [B, N, T, S], twice multiplied by H, five times in the backward pass; a causal mask skips half
        size = math.prod(int(n) for n in re.findall(r"\d+", scores.group(1)))
        products = (5 if "Backward" in attributes else 2) / (2 if '"CAUSAL"' in attributes else 1)
        return 2.0 * products * size * where.instructions[instruction.operands[0]].leaves[0].dims[-1]
    if "gemm" in attributes or "matmul" in attributes:
        left = where.instructions[instruction.operands[0]].leaves[0].dims
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', attributes)
        contracted = [int(i) for i in re.findall(r"\d+", found.group(1))] if found else [len(left) - 1]
        return 2.0 * instruction.leaves[0].size * math.prod(left[i] for i in contracted)
    return 0.0


def _numbers(attributes: str, key: str) -> list[int]:
    found = re.search(rf"\b{key}=\{{([\d,]*)\}}", attributes)
    return [int(n) for n in found.group(1).split(",") if n] if found else []


def _shape(instruction: Instruction) -> str:
    leaf = max(instruction.leaves, key=lambda leaf: leaf.bytes, default=Leaf(0, 0, 0, ()))
    return "x".join(map(str, leaf.dims))


def _origin(instruction: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    if not found:
        return re.sub(r"[.\d]+$", "", instruction.name)
    return re.sub(r"(while|body|closed_call|jit\(\w+\))/", "", found.group(1))
