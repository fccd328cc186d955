"""Optimised HLO as text (`compiled.as_text()`) read into computations and instructions."""

import dataclasses
import functools
import math
import re

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "token": 0, "opaque": 0, "c64": 8, "c128": 16}
_LEAF = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a result. `size`: elements; `bytes`: with the padding that its tiled layout needs."""

    size: int
    bytes: int
    space: int
    dims: tuple[int, ...]
    kind: str = ""  # f32, bf16, …


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    leaves: tuple[Leaf, ...]
    operands: tuple[str, ...]
    attributes: str
    inside: str  # what stands in the parentheses

    @property
    def size(self) -> int:
        return sum(leaf.size for leaf in self.leaves)

    def called(self, key: str) -> str:
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else ""


@dataclasses.dataclass
class Computation:
    instructions: dict[str, Instruction]
    parameters: list[str]
    root: str = ""

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return users


def parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    entry, current = "", None
    text = re.sub(r'\n(?=["}].)', " ", text)  # the settings of a kernel may go over several lines
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            current = computations[head.group(2)] = Computation({}, [])
            entry = head.group(2) if head.group(1) else entry
        elif current is not None and line.startswith("  "):
            _parse_line(current, line.strip())
        elif line.startswith("}"):
            current = None
    return computations, entry


def _parse_line(computation: Computation, line: str) -> None:
    found = re.match(r"(ROOT )?%?([\w.\-]+) = ", line)
    if not found:
        return
    shape, rest = _shape_and_rest(line[found.end():])
    opcode, _, rest = rest.partition("(")
    inside, attributes = _balanced(rest)
    operands = () if opcode in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", inside))
    instruction = Instruction(found.group(2), opcode.strip(), _leaves(shape), operands, attributes, inside)
    computation.instructions[instruction.name] = instruction
    if found.group(1):
        computation.root = instruction.name
    if instruction.opcode == "parameter":
        number = int(inside)
        computation.parameters += [""] * (number + 1 - len(computation.parameters))
        computation.parameters[number] = instruction.name


def _shape_and_rest(text: str) -> tuple[str, str]:
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    inside, rest = _balanced(text[1:])
    return inside, rest.lstrip()


def _balanced(text: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes, and after it."""
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return text[: found.start()], text[found.end():]
    return text, ""


@functools.cache
def _leaves(shape: str) -> tuple[Leaf, ...]:
    return tuple(_leaf(*found) for found in _LEAF.findall(shape))


def _leaf(kind: str, dims: str, layout: str) -> Leaf:
    sizes = tuple(int(n.lstrip("<=")) for n in dims.split(",") if n)
    bits = re.search(r"\d+", kind)
    width = _BYTES.get(kind) if kind in _BYTES else int(bits.group()) / 8 if bits else 0
    space = re.search(r"S\((\d+)\)", layout)
    return Leaf(math.prod(sizes), int(width * _padded(sizes, layout)), int(space.group(1)) if space else 0, sizes,
                kind)


def _padded(sizes: tuple[int, ...], layout: str) -> int:
    """Elements with padding to whole tiles, as in {1,0:T(8,128)}: the last tile size is the fastest dimension's."""
    order, _, tiles = layout.partition(":")
    tile = re.search(r"T\(([\d,]+)\)", tiles)
    if not tile or not sizes or not order:
        return math.prod(sizes)
    padded = list(sizes)
    for dim, size in zip(order.split(","), reversed(tile.group(1).split(",")), strict=False):
        padded[int(dim)] = -(-sizes[int(dim)] // int(size)) * int(size)
    return math.prod(padded)
