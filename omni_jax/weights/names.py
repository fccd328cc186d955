"""The name table: one row per tensor of the Thinker, from the path in our parameter tree to its Hugging Face name.

A layout spells the shape as Hugging Face stores it, one word per axis, a word being a letter of the section's legend
or a number. `N.H` is one axis there and two axes here (heads are split out); `C*t*p*p` is several axes there and one
here. Both are reshapes of the same bytes: nothing is ever transposed. Paths and names with `#` exist once per layer
there, and stacked on a leading axis L here.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping

from omni_jax.config import OmniConfig

# What each letter of a layout means, per section, as an expression over the fields of that section's config.
LEGENDS = {
    "text_config": {
        "V": "vocab_size", "D": "hidden_size", "F": "intermediate_size", "L": "num_hidden_layers",
        "N": "num_attention_heads", "K": "num_key_value_heads", "H": "head_dim", "A": "num_attention_heads * head_dim",
    },
    "audio_config": {
        "D": "d_model", "F": "encoder_ffn_dim", "L": "encoder_layers", "N": "encoder_attention_heads",
        "H": "d_model / encoder_attention_heads", "M": "num_mel_bins", "E": "output_dim",
    },
    "vision_config": {
        "D": "hidden_size", "F": "intermediate_size", "L": "depth", "N": "num_heads", "H": "hidden_size / num_heads",
        "E": "out_hidden_size", "C": "in_channels", "t": "temporal_patch_size", "p": "patch_size",
        "G": "hidden_size * spatial_merge_size * spatial_merge_size",
    },
}  # fmt: skip

# Path here, name in the files of a Thinker alone (hub scheme), layout of one layer. In the order of the networks.
_TEXT = """
embed/weight                             model.embed_tokens.weight                          V D
lm_head/weight                           lm_head.weight                                     V D
decoder/layers/attention_norm/scale      model.layers.#.input_layernorm.weight              D
decoder/layers/q/weight                  model.layers.#.self_attn.q_proj.weight             N.H D
decoder/layers/q/bias                    model.layers.#.self_attn.q_proj.bias               N.H
decoder/layers/k/weight                  model.layers.#.self_attn.k_proj.weight             K.H D
decoder/layers/k/bias                    model.layers.#.self_attn.k_proj.bias               K.H
decoder/layers/v/weight                  model.layers.#.self_attn.v_proj.weight             K.H D
decoder/layers/v/bias                    model.layers.#.self_attn.v_proj.bias               K.H
decoder/layers/o/weight                  model.layers.#.self_attn.o_proj.weight             D A
decoder/layers/mlp_norm/scale            model.layers.#.post_attention_layernorm.weight     D
decoder/layers/gate/weight               model.layers.#.mlp.gate_proj.weight                F D
decoder/layers/up/weight                 model.layers.#.mlp.up_proj.weight                  F D
decoder/layers/down/weight               model.layers.#.mlp.down_proj.weight                D F
decoder/norm/scale                       model.norm.weight                                  D
"""
_AUDIO = """
audio/conv1/weight                       audio_tower.conv1.weight                           D M 3
audio/conv1/bias                         audio_tower.conv1.bias                             D
audio/conv2/weight                       audio_tower.conv2.weight                           D D 3
audio/conv2/bias                         audio_tower.conv2.bias                             D
audio/bos_eos/weight                     audio_tower.audio_bos_eos_token.weight             2 E
audio/layers/attention_norm/scale        audio_tower.layers.#.self_attn_layer_norm.weight   D
audio/layers/attention_norm/bias         audio_tower.layers.#.self_attn_layer_norm.bias     D
audio/layers/q/weight                    audio_tower.layers.#.self_attn.q_proj.weight       N.H D
audio/layers/q/bias                      audio_tower.layers.#.self_attn.q_proj.bias         N.H
audio/layers/k/weight                    audio_tower.layers.#.self_attn.k_proj.weight       N.H D
audio/layers/v/weight                    audio_tower.layers.#.self_attn.v_proj.weight       N.H D
audio/layers/v/bias                      audio_tower.layers.#.self_attn.v_proj.bias         N.H
audio/layers/o/weight                    audio_tower.layers.#.self_attn.out_proj.weight     D D
audio/layers/o/bias                      audio_tower.layers.#.self_attn.out_proj.bias       D
audio/layers/mlp_norm/scale              audio_tower.layers.#.final_layer_norm.weight       D
audio/layers/mlp_norm/bias               audio_tower.layers.#.final_layer_norm.bias         D
audio/layers/fc1/weight                  audio_tower.layers.#.fc1.weight                    F D
audio/layers/fc1/bias                    audio_tower.layers.#.fc1.bias                      F
audio/layers/fc2/weight                  audio_tower.layers.#.fc2.weight                    D F
audio/layers/fc2/bias                    audio_tower.layers.#.fc2.bias                      D
audio/post_norm/scale                    audio_tower.ln_post.weight                         D
audio/post_norm/bias                     audio_tower.ln_post.bias                           D
audio/proj/weight                        audio_tower.proj.weight                            E D
audio/proj/bias                          audio_tower.proj.bias                              E
"""
_VISION = """
vision/patch_embed/weight                visual.patch_embed.proj.weight                     D C*t*p*p
vision/layers/attention_norm/scale       visual.blocks.#.norm1.weight                       D
vision/layers/q/weight                   visual.blocks.#.attn.q.weight                      N.H D
vision/layers/q/bias                     visual.blocks.#.attn.q.bias                        N.H
vision/layers/k/weight                   visual.blocks.#.attn.k.weight                      N.H D
vision/layers/k/bias                     visual.blocks.#.attn.k.bias                        N.H
vision/layers/v/weight                   visual.blocks.#.attn.v.weight                      N.H D
vision/layers/v/bias                     visual.blocks.#.attn.v.bias                        N.H
vision/layers/o/weight                   visual.blocks.#.attn.proj.weight                   D D
vision/layers/o/bias                     visual.blocks.#.attn.proj.bias                     D
vision/layers/mlp_norm/scale             visual.blocks.#.norm2.weight                       D
vision/layers/gate/weight                visual.blocks.#.mlp.gate_proj.weight               F D
vision/layers/gate/bias                  visual.blocks.#.mlp.gate_proj.bias                 F
vision/layers/up/weight                  visual.blocks.#.mlp.up_proj.weight                 F D
vision/layers/up/bias                    visual.blocks.#.mlp.up_proj.bias                   F
vision/layers/down/weight                visual.blocks.#.mlp.down_proj.weight               D F
vision/layers/down/bias                  visual.blocks.#.mlp.down_proj.bias                 D
vision/merger/norm/scale                 visual.merger.ln_q.weight                          D
vision/merger/fc1/weight                 visual.merger.mlp.0.weight                         G G
vision/merger/fc1/bias                   visual.merger.mlp.0.bias                           G
vision/merger/fc2/weight                 visual.merger.mlp.2.weight                         E G
vision/merger/fc2/bias                   visual.merger.mlp.2.bias                           E
"""

# Networks whose tensors are carried along unread: they belong to the speaking half of the model.
CARRIED_PREFIXES = ("talker.", "token2wav.")
# transformers 5 nests the three networks of the Thinker in one `model`; the published files don't.
_NESTED = {"model.language_model.": "model.", "model.audio_tower.": "audio_tower.", "model.visual.": "visual."}


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of the Thinker. `sizes`: layout word -> number, for one configuration; `layers` None if unstacked."""

    section: str
    path: str
    name: str
    layout: tuple[str, ...]
    sizes: dict[str, int] = dataclasses.field(compare=False)
    layers: int | None

    @property
    def key(self) -> tuple[str, ...]:
        """The path as the keys of the nested dict."""
        return tuple(self.path.split("/"))

    @property
    def file_shape(self) -> tuple[int, ...]:
        """One layer's shape in Hugging Face files."""
        axes = (axis for word in self.layout for axis in word.split("*"))
        return tuple(math.prod(self.sizes[letter] for letter in axis.split(".")) for axis in axes)

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """One layer's shape in our tree."""
        axes = (axis for word in self.layout for axis in word.split("."))
        return tuple(math.prod(self.sizes[letter] for letter in axis.split("*")) for axis in axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the leaf in our tree, layers stacked."""
        return self.layer_shape if self.layers is None else (self.layers, *self.layer_shape)

    def name_of(self, layer: int) -> str:
        """The hub name of one layer's tensor, without the Thinker's prefix."""
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
        legend = LEGENDS[self.section]
        words = [" x ".join(legend.get(letter, letter) for letter in re.split(r"[.*]", word)) for word in self.layout]
        return f"thinker_config.{self.section}: {', '.join(words)}"


def rows(config: OmniConfig) -> list[Row]:
    """Every tensor of the Thinker of `config`, in the order of the networks."""
    table = []
    for section, text in (("text_config", _TEXT), ("audio_config", _AUDIO), ("vision_config", _VISION)):
        sizes = _sizes(getattr(config.thinker_config, section), LEGENDS[section])
        for line in text.strip().splitlines():
            path, name, *layout = line.split()
            table.append(Row(section, path, name, tuple(layout), sizes, sizes["L"] if "#" in name else None))
    tied = config.thinker_config.tie_word_embeddings
    return [row for row in table if not (tied and row.path == "lm_head/weight")]


def in_file_order(table: list[Row]) -> Iterator[tuple[Row, int]]:
    """(row, layer) of every tensor, a whole layer before the next: the order in which checkpoints are written."""
    for _, stack in itertools.groupby(table, lambda row: (row.layers is not None, row.section)):
        stack = list(stack)
        for layer in range(stack[0].layers or 1):
            yield from ((row, layer) for row in stack)


def canonical(name: str) -> str:
    """A Thinker tensor's name (without `thinker.`) in the hub scheme, from either scheme."""
    for nested, plain in _NESTED.items():
        if name.startswith(nested):
            return plain + name[len(nested):]
    return name


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
    """Asserts that paths and shapes of a parameter tree (arrays or abstract) are those of the table.

    `nnx.merge` fills a tree by position and never compares names or shapes, so this is the only guard. A failure
    is a programming error, not a user's: AssertionError.
    """
    found = {path: tuple(leaf.shape) for path, leaf in leaves(tree)}
    expected = {path: row.shape if path == row.path else row.layer_shape
                for row in rows(config) for path in row.leaf_paths(found)}
    wrong = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
    if wrong:
        told = "; ".join(f"{path}: table {expected.get(path)}, tree {found.get(path)}" for path in wrong[:5])
        raise AssertionError(f"{len(wrong)} leaves of the parameter tree differ from the name table: {told}")


def _sizes(section: object, legend: dict[str, str]) -> dict[str, int]:
    sizes = {str(number): number for number in (2, 3)}
    for letter, expression in legend.items():
        first, *rest = re.split(r" ([*/]) ", expression)
        value = getattr(section, first)
        for operator, field in zip(rest[::2], rest[1::2], strict=True):
            value = value * getattr(section, field) if operator == "*" else value // getattr(section, field)
        sizes[letter] = value
    return sizes
