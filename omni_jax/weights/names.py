"""The rows of the name tables for a configuration: each tensor's path in our tree, its Hugging Face name and shapes.

The tree's roots are the networks: `thinker`, and with speech `talker` and `token2wav`. See tables.py for the notation.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping

from omni_jax.config import OmniConfig
from omni_jax.weights.tables import SECTIONS, Section

# transformers 5 nests the three networks of the Thinker in one `model`; the published files don't.
_NESTED = re.compile(r"^(thinker\.|)model\.(language_model|audio_tower|visual)\.")


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor. `name` is its whole name in this checkpoint; `sizes`: letter of the layout -> number, for one
    configuration; `layers` None if unstacked."""

    section: Section
    path: str
    name: str
    layout: tuple[str, ...]
    sizes: dict[str, int] = dataclasses.field(compare=False)
    layers: int | None

    def size(self, letter: str) -> int:
        """What a letter of the layout, or a number there, stands for."""
        return int(letter) if letter.isdecimal() else self.sizes[letter]

    @property
    def file_shape(self) -> tuple[int, ...]:
        """One layer's shape in Hugging Face files."""
        axes = (axis for word in self.layout for axis in word.split("*"))
        return tuple(math.prod(map(self.size, axis.split("."))) for axis in axes)

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """One layer's shape in our tree."""
        axes = (axis for word in self.layout for axis in word.split("."))
        return tuple(math.prod(map(self.size, axis.split("*"))) for axis in axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the leaf in our tree, layers stacked."""
        return self.layer_shape if self.layers is None else (self.layers, *self.layer_shape)

    def name_of(self, layer: int) -> str:
        """The hub name of one layer's tensor."""
        return self.name.replace("#", str(layer))

    def leaf_paths(self, tree: Mapping[str, object]) -> list[str]:
        """The paths of this row's leaves in a flat tree: one if its layers are stacked, else one a layer."""
        if self.layers is None or self.path in tree:
            return [self.path]
        return [self.path.replace("/layers/", f"/layers/{layer}/") for layer in range(self.layers)]

    def names(self) -> list[str]:
        """The hub names of this row's tensors, one per layer (one in all if unstacked)."""
        return [self.name_of(layer) for layer in range(self.layers or 1)]

    def fields(self) -> str:
        """The configuration fields that fix the shape, for error messages."""
        legend = self.section.legend
        words = [" x ".join(legend.get(letter, letter) for letter in re.split(r"[.*]", word)) for word in self.layout]
        return f"{self.section.config}: {', '.join(words)}"


def rows(config: OmniConfig, networks: Iterator[str] | None = None) -> list[Row]:
    """Every tensor of the networks that `config` has (or of these alone), in the order of checkpoints."""
    table = []
    for section in SECTIONS:
        if networks is None or section.network in networks:
            table += _section_rows(section, config)
    return table


def _section_rows(section: Section, config: OmniConfig) -> Iterator[Row]:
    part = functools.reduce(lambda part, name: part and getattr(part, name), section.config.split("."), config)
    if part is None:
        return
    sizes = {letter: _value(part, expression) for letter, expression in section.legend.items()}
    prefix = config.thinker_prefix if section.network == "thinker" else f"{section.network}."
    tied = section.network == "thinker" and config.thinker_config.tie_word_embeddings
    table = section.table if isinstance(section.table, str) else section.table(part)
    for line in filter(None, table.splitlines()):
        path, name, *layout = line.split()
        if not (tied and path == "lm_head/weight"):
            yield Row(section, f"{section.network}/{path}", prefix + name, tuple(layout), sizes,
                      sizes["L"] if "#" in name else None)


def in_file_order(table: list[Row]) -> Iterator[tuple[Row, int]]:
    """(row, layer) of every tensor, a whole layer before the next: the order in which checkpoints are written."""
    for _, stack in itertools.groupby(table, lambda row: (row.layers is not None, row.section.config)):
        stack = list(stack)
        for layer in range(stack[0].layers or 1):
            yield from ((row, layer) for row in stack)


def canonical(name: str) -> str:
    """A tensor's name in the hub scheme, from either scheme."""
    return _NESTED.sub(lambda m: m[1] + ("model." if m[2] == "language_model" else f"{m[2]}."), name)


def leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(path, leaf) of a nested dict, paths joined by `/`."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def nest(flat: dict[str, object]) -> dict:
    """The nested dict of {path: leaf}: the inverse of `leaves`. Numbers are keys of unstacked layers."""
    tree: dict = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(int(key) if key.isdigit() else key, {})
        node[last] = leaf
    return tree


def check_tree(tree: dict, config: OmniConfig) -> None:
    """Asserts that paths and shapes of a parameter tree (arrays or abstract) are those of the table, for the networks
    that it has.

    `nnx.merge` fills a tree by position and never compares names or shapes, so this is the only guard. A failure
    is a programming error, not a user's: AssertionError.
    """
    found = {path: tuple(leaf.shape) for path, leaf in leaves(tree)}
    expected = {path: row.shape if path == row.path else row.layer_shape
                for row in rows(config, tree) for path in row.leaf_paths(found)}
    wrong = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
    if wrong:
        told = "; ".join(f"{path}: table {expected.get(path)}, tree {found.get(path)}" for path in wrong[:5])
        raise AssertionError(f"{len(wrong)} leaves of the parameter tree differ from the name table: {told}")


def _value(section: object, expression: str) -> int:
    """A legend's expression over the fields of a section's configuration."""
    first, *rest = re.split(r" ([*/]) ", expression)
    value = getattr(section, first)
    for operator, field in zip(rest[::2], rest[1::2], strict=True):
        value = value * getattr(section, field) if operator == "*" else value // getattr(section, field)
    return value
