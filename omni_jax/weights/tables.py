"""The name tables: a line per tensor, from the path in our parameter tree to its Hugging Face name and shape.

A layout spells the shape as Hugging Face stores it, one word per axis, a word being a letter of the section's legend
or a number. `N.H` is one axis there and two axes here (heads are split out); `C*t*p*p` is several axes there and one
here. Both are reshapes of the same bytes: nothing is ever transposed. Paths and names with `#` exist once per layer
there, and stacked on a leading axis L here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from omni_jax.weights.token2wav_names import BIGVGAN_LEGEND, DIT_LEGEND, bigvgan_table, dit_table

# A path here, the name in Hugging Face files, the layout of one layer.
_DECODER = """
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
_TEXT = """
embed/weight                             model.embed_tokens.weight                          V D
lm_head/weight                           lm_head.weight                                     V D
""" + _DECODER
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
_TALKER = """
embed/weight                             model.embed_tokens.weight                          V E
proj/weight                              thinker_to_talker_proj.weight                      D E
proj/bias                                thinker_to_talker_proj.bias                        D
codec_head/weight                        codec_head.weight                                  V D
""" + _DECODER


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """The tensors that one part of config.json describes. `network`: the root of their paths and names; `config`: that
    part's place; `legend`: what each letter of a layout means, as an expression over its fields; `table`: the lines,
    or what gives them for a configuration."""

    network: str
    config: str
    legend: Mapping[str, str]
    table: str | Callable[[Any], str]


_DECODER_LEGEND = {
    "V": "vocab_size", "D": "hidden_size", "F": "intermediate_size", "L": "num_hidden_layers",
    "N": "num_attention_heads", "K": "num_key_value_heads", "H": "head_dim", "A": "num_attention_heads * head_dim",
}  # fmt: skip
# In the order in which checkpoints are written.
SECTIONS = (
    Section("thinker", "thinker_config.text_config", _DECODER_LEGEND, _TEXT),
    Section("thinker", "thinker_config.audio_config", {
        "D": "d_model", "F": "encoder_ffn_dim", "L": "encoder_layers", "N": "encoder_attention_heads",
        "H": "d_model / encoder_attention_heads", "M": "num_mel_bins", "E": "output_dim",
    }, _AUDIO),
    Section("thinker", "thinker_config.vision_config", {
        "D": "hidden_size", "F": "intermediate_size", "L": "depth", "N": "num_heads", "H": "hidden_size / num_heads",
        "E": "out_hidden_size", "C": "in_channels", "t": "temporal_patch_size", "p": "patch_size",
        "G": "hidden_size * spatial_merge_size * spatial_merge_size",
    }, _VISION),
    Section("talker", "talker_config", {**_DECODER_LEGEND, "E": "embedding_size"}, _TALKER),
    Section("token2wav", "token2wav_config.dit_config", DIT_LEGEND, dit_table),
    Section("token2wav", "token2wav_config.bigvgan_config", BIGVGAN_LEGEND, bigvgan_table),
)  # fmt: skip
