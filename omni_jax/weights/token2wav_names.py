"""The name tables of Token2Wav; see tables.py for the notation. ECAPA's and BigVGAN's lists hold weights of different
shapes, so they are not stacked: their lines are written out from the configuration."""

from collections.abc import Iterator

from omni_jax.config import BigVGANConfig, DiTConfig

DIT_LEGEND = {
    "D": "hidden_size", "L": "num_hidden_layers", "N": "num_attention_heads", "H": "head_dim",
    "F": "hidden_size * ff_mult", "E": "emb_dim", "M": "mel_dim", "P": "enc_dim", "A": "enc_attention_channels",
    "S": "enc_se_channels", "I": "input_size", "V": "codec_rows", "W": "num_attention_heads * head_dim",
}  # fmt: skip
BIGVGAN_LEGEND = {"M": "mel_dim", "C": "upsample_initial_channel"}
TIME_WIDTH = 256  # of the sinusoids that a time is written in; in no config.json

_DIT = f"""
time/fc1/weight               time_embed.time_mlp.0.weight                      D {TIME_WIDTH}
time/fc1/bias                 time_embed.time_mlp.0.bias                        D
time/fc2/weight               time_embed.time_mlp.2.weight                      D D
time/fc2/bias                 time_embed.time_mlp.2.bias                        D
codec_embed/weight            text_embed.codec_embed.weight                     V E
input/weight                  input_embed.proj.weight                           D I
input/bias                    input_embed.proj.bias                             D
"""
_DIT_LAYERS = """
layers/modulation/weight      transformer_blocks.#.attn_norm.linear.weight      6.D D
layers/modulation/bias        transformer_blocks.#.attn_norm.linear.bias        6.D
layers/q/weight               transformer_blocks.#.attn.to_q.weight             N.H D
layers/q/bias                 transformer_blocks.#.attn.to_q.bias               N.H
layers/k/weight               transformer_blocks.#.attn.to_k.weight             N.H D
layers/k/bias                 transformer_blocks.#.attn.to_k.bias               N.H
layers/v/weight               transformer_blocks.#.attn.to_v.weight             N.H D
layers/v/bias                 transformer_blocks.#.attn.to_v.bias               N.H
layers/o/weight               transformer_blocks.#.attn.to_out.0.weight         D W
layers/o/bias                 transformer_blocks.#.attn.to_out.0.bias           D
layers/fc1/weight             transformer_blocks.#.ff.ff.0.weight               F D
layers/fc1/bias               transformer_blocks.#.ff.ff.0.bias                 F
layers/fc2/weight             transformer_blocks.#.ff.ff.3.weight               D F
layers/fc2/bias               transformer_blocks.#.ff.ff.3.bias                 D
modulation/weight             norm_out.linear.weight                            2.D D
modulation/bias               norm_out.linear.bias                              2.D
output/weight                 proj_out.weight                                   M D
output/bias                   proj_out.bias                                     M
"""


def dit_table(config: DiTConfig) -> str:
    """Paths from `dit/`, names from `code2wav_dit_model.`."""
    lines = [*_DIT.split("\n"), *_ecapa_lines(config), *_DIT_LAYERS.split("\n")]
    return "\n".join("dit/{} code2wav_dit_model.{} {}".format(*line.split(None, 2)) for line in filter(None, lines))


def bigvgan_table(config: BigVGANConfig) -> str:
    """Paths from `bigvgan/`, names from `code2wav_bigvgan_model.`."""
    return "\n".join("bigvgan/{} code2wav_bigvgan_model.{} {}".format(*line.split(None, 2))
                     for line in _bigvgan_lines(config))


def _pair(path: str, name: str, layout: str) -> Iterator[str]:
    """A convolution's weight and bias; `layout` begins with the outputs."""
    yield f"{path}/weight {name}.weight {layout}"
    yield f"{path}/bias {name}.bias {layout.split()[0]}"


def _ecapa_lines(config: DiTConfig) -> Iterator[str]:
    theirs, channels, taps = "input_embed.spk_encoder", config.enc_channels, config.enc_kernel_sizes
    group = channels[0] // config.enc_res2net_scale
    yield from _pair("speaker/first", f"{theirs}.blocks.0.conv", f"{channels[0]} M {taps[0]}")
    for i, C in enumerate(channels[1:-1], 1):
        path, name = f"speaker/blocks/{i - 1}", f"{theirs}.blocks.{i}"
        yield from _pair(f"{path}/before", f"{name}.tdnn1.conv", f"{C} {C} 1")
        for j in range(config.enc_res2net_scale - 1):
            yield from _pair(f"{path}/groups/{j}", f"{name}.res2net_block.blocks.{j}.conv",
                             f"{group} {group} {taps[i]}")
        yield from _pair(f"{path}/after", f"{name}.tdnn2.conv", f"{C} {C} 1")
        yield from _pair(f"{path}/squeeze", f"{name}.se_block.conv1", f"S {C} 1")
        yield from _pair(f"{path}/excite", f"{name}.se_block.conv2", f"{C} S 1")
    C = channels[-1]
    yield from _pair("speaker/join", f"{theirs}.mfa.conv", f"{C} {C} {taps[-1]}")
    yield from _pair("speaker/attention", f"{theirs}.asp.tdnn.conv", f"A {3 * C} 1")
    yield from _pair("speaker/scores", f"{theirs}.asp.conv", f"{C} A 1")
    yield from _pair("speaker/output", f"{theirs}.fc", f"P {2 * C} 1")


def _bigvgan_lines(config: BigVGANConfig) -> Iterator[str]:
    yield from _pair("first", "conv_pre", "C M 7")
    C, blocks = config.upsample_initial_channel, len(config.resblock_kernel_sizes)
    for stage, taps in enumerate(config.upsample_kernel_sizes):
        C //= 2
        yield f"ups/{stage}/weight ups.{stage}.0.weight {2 * C} {C} {taps}"  # transposed: inputs come first
        yield f"ups/{stage}/bias ups.{stage}.0.bias {C}"
        for i, taps in enumerate(config.resblock_kernel_sizes, stage * blocks):
            for j in range(3):
                for convs in ("convs1", "convs2"):
                    yield from _pair(f"resblocks/{i}/{convs}/{j}", f"resblocks.{i}.{convs}.{j}", f"{C} {C} {taps}")
            for j in range(6):
                yield from _snake_lines(f"resblocks/{i}/snakes/{j}", f"resblocks.{i}.activations.{j}", C)
    yield from _snake_lines("last_snake", "activation_post", C)
    yield f"last/weight conv_post.weight 1 {C} 7"


def _snake_lines(path: str, name: str, channels: int) -> Iterator[str]:
    yield f"{path}/alpha {name}.act.alpha {channels}"
    yield f"{path}/beta {name}.act.beta {channels}"
