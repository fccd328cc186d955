"""Token2Wav networks beside the reference's: the same random weights, energetic enough that mistakes show."""

import functools
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen2_5OmniToken2WavConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniToken2WavModel

from omni_jax import sharding
from omni_jax.config import Token2WavConfig, _read
from omni_jax.models.token2wav import Token2Wav
from omni_jax.weights.names import nest
from omni_jax.weights.token2wav_names import BIGVGAN_LEGEND, DIT_LEGEND, bigvgan_table, dit_table

RELEASE = json.loads(Path("configs/qwen2.5-omni-7b.json").read_text())["token2wav_config"]
# No two sizes are equal by accident; the query width (3 x 10) is not the hidden size; Res2Net has a chain of groups.
TINY = {
    "dit_config": {
        "hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 3, "head_dim": 10, "ff_mult": 3,
        "emb_dim": 20, "block_size": 24, "look_ahead_layers": [3], "look_backward_layers": [0, 4], "repeats": 2,
        "num_embeds": 37, "mel_dim": 14, "dropout": 0.1, "max_position_embeddings": 32768, "rope_theta": 10000.0,
        "enc_emb_dim": 11, "enc_dim": 13, "enc_channels": [12, 12, 12, 12, 36], "enc_kernel_sizes": [5, 3, 3, 3, 1],
        "enc_dilations": [1, 2, 3, 4, 1], "enc_attention_channels": 7, "enc_res2net_scale": 3, "enc_se_channels": 9,
    },
    "bigvgan_config": {
        "mel_dim": 14, "upsample_initial_channel": 64, "resblock_kernel_sizes": [3, 7],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "upsample_rates": [5, 3, 2],
        "upsample_kernel_sizes": [11, 7, 4],
    },
}  # fmt: skip


def config_of(data: dict) -> Token2WavConfig:
    return _read(Token2WavConfig, data, "token2wav_config")


@functools.cache
def reference(seed: int = 0, release: bool = False, part: str = "") -> torch.nn.Module:
    """The reference with random weights, in float32."""
    config = Qwen2_5OmniToken2WavConfig(**(RELEASE if release else TINY))
    generator = torch.Generator().manual_seed(seed)
    model = Qwen2_5OmniToken2WavModel(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_draw(name, value.shape, generator))
    return model


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith(("alpha", "beta")):
        return 0.3 * noise
    if name.endswith("bias"):
        return 0.05 * noise
    if "codec_embed" in name:
        return noise
    fan_in = shape[0] * shape[2] / 3 if ".ups." in name else np.prod(shape[1:])
    gain = 0.3 if "conv_post" in name else 0.6 if "resblocks" in name else 0.7 if "attn_norm" in name or "norm_out" in name else 1.2
    return gain * noise / fan_in**0.5


def ours(model: torch.nn.Module, config: Token2WavConfig, mesh: str = "", scanned: bool = False):
    """(graphdef, params) with the reference's weights, laid out by the name tables."""
    build = functools.partial(Token2Wav, scanned=scanned)
    graphdef, abstract = sharding.abstract(build, config, sharding.make_mesh(mesh or "data=1"))
    state, flat = model.state_dict(), {}
    for part, table, legend in ((config.dit_config, dit_table, DIT_LEGEND),
                                (config.bigvgan_config, bigvgan_table, BIGVGAN_LEGEND)):
        sizes = {letter: _value(part, text) for letter, text in legend.items()}
        for line in table(part).splitlines():
            path, name, *layout = line.split()
            layers = range(sizes["L"]) if "#" in name else [None]
            shape = [int(axis) if axis.isdecimal() else sizes[axis] for word in layout for axis in word.split(".")]
            values = [state.pop(name.replace("#", str(i))).numpy().reshape(shape) for i in layers]
            if layers == [None]:
                flat[path] = values[0]
            elif scanned:
                flat[path] = np.stack(values)
            else:
                flat |= {path.replace("/layers/", f"/layers/{i}/"): value for i, value in enumerate(values)}
    assert not state, list(state)
    return graphdef, place(nest(flat), abstract)


def place(tree, abstract):
    """Arrays under the abstract tree's shardings; paths and shapes must be its own."""
    import jax

    assert jax.tree.structure(tree) == jax.tree.structure(abstract)
    return jax.tree.map(lambda x, wanted: jax.device_put(_same_shape(x, wanted), wanted.sharding), tree, abstract)


def _same_shape(x, wanted):
    assert x.shape == wanted.shape
    return jnp.asarray(x)


def _value(part, text: str) -> int:
    first, *rest = re.split(r" \* ", text)
    return getattr(part, first) * int(np.prod([getattr(part, name) for name in rest]))


def relative(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max() / np.abs(b).max())
