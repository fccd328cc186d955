"""Token2Wav networks beside the reference's: the same random weights, energetic enough that mistakes show."""

import copy
import functools
import json
from pathlib import Path

import jax
import numpy as np
import torch
from transformers import Qwen2_5OmniToken2WavConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniToken2WavModel

from omni_jax import sharding
from omni_jax.config import OmniConfig, Token2WavConfig
from omni_jax.models.token2wav import Token2Wav
from omni_jax.weights.names import check_tree, nest, rows
from tests import tiny

RELEASE = json.loads(Path("configs/qwen2.5-omni-7b.json").read_text())["token2wav_config"]
TINY = copy.deepcopy(tiny.TOKEN2WAVS["7b"])
TINY["dit_config"] |= {"num_embeds": 37, "mel_dim": 14, "enc_emb_dim": 11}
TINY["bigvgan_config"] |= {"mel_dim": 14}


@functools.cache
def reference(seed: int = 0, release: bool = False) -> torch.nn.Module:
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
    gains = {"conv_post": 0.3, "resblocks": 0.6, "attn_norm": 0.7, "norm_out": 0.7}
    gain = next((gain for part, gain in gains.items() if part in name), 1.2)
    return gain * noise / fan_in**0.5


def ours(model: torch.nn.Module, data: dict, mesh: str = "data=1", scanned: bool = False):
    """(graphdef, params) with the reference's weights, by the name tables."""
    config = omni_config(data)
    build = functools.partial(Token2Wav, scanned=scanned)
    graphdef, abstract = sharding.abstract(build, config.token2wav_config, sharding.make_mesh(mesh))
    check_tree({"token2wav": abstract}, config)
    state, flat = model.state_dict(), {}
    for row in rows(config, ["token2wav"]):
        values = [state.pop(name.removeprefix("token2wav.")).numpy().reshape(row.layer_shape) for name in row.names()]
        paths = row.leaf_paths({row.path} if scanned else {})
        flat |= dict(zip(paths, values if len(paths) == len(values) else [np.stack(values)], strict=True))
    assert not state, list(state)
    params = nest({path.removeprefix("token2wav/"): value for path, value in flat.items()})
    return graphdef, jax.tree.map(lambda x, wanted: jax.device_put(x, wanted.sharding), params, abstract)


def omni_config(data: dict) -> OmniConfig:
    return OmniConfig.from_json({**tiny.config("7b"), "enable_audio_output": True, "token2wav_config": data})


def config_of(data: dict) -> Token2WavConfig:
    return omni_config(data).token2wav_config


def relative(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max() / np.abs(b).max())
