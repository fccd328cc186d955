"""Token2Wav of a configuration beside the reference: one evaluation of the DiT, and the vocoder; random weights.

`comparisons` gives the fields of tools.benchmark's Job, so that it can time them among its parts; by itself:

    python -m tools._token2wav_slices configs/qwen2.5-omni-7b.json

A solve is 36 evaluations of the DiT on both sides. Ours reads the modulations, the voice and the codes from what is
computed once per checkpoint, voice and chunk; the reference computes them in each evaluation.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.models import dit
from omni_jax.models.token2wav import Token2Wav
from omni_jax.weights.names import nest, rows
from tools._measure import Side

BLOCKS = 4  # 0.96 s of sound
TIME = 7  # which of the solver's moments is evaluated


def comparisons(config: OmniConfig) -> Iterator[dict[str, Any]]:
    """Of a configuration with token2wav_config."""
    reference = random_reference(config)
    graphdef, params = same_weights(config, reference)
    yield dit_comparison(config, reference.code2wav_dit_model, graphdef, params)
    yield bigvgan_comparison(config, reference.code2wav_bigvgan_model, graphdef, params)


def random_reference(config: OmniConfig) -> Any:
    import torch
    from transformers import Qwen2_5OmniToken2WavConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniToken2WavModel

    model = Qwen2_5OmniToken2WavModel(Qwen2_5OmniToken2WavConfig(**config.to_json()["token2wav_config"])).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            fan_in = np.prod(value.shape[1:]) if value.ndim > 1 else 400  # vectors: biases, and exponents of snakes
            value.normal_(0, (0.3 if "resblocks" in name else 0.7) / fan_in**0.5, generator=generator)
    return model


def same_weights(config: OmniConfig, reference: Any) -> tuple[nnx.GraphDef, dict]:
    graphdef, _ = sharding.abstract(functools.partial(Token2Wav, scanned=False), config.token2wav_config,
                                    sharding.make_mesh("data=1"))
    state, flat = reference.state_dict(), {}
    for row in rows(config, ["token2wav"]):
        values = [state[name.removeprefix("token2wav.")].numpy().reshape(row.layer_shape) for name in row.names()]
        flat |= zip(row.leaf_paths({}), map(jnp.array, values), strict=True)
    return graphdef, nest({path.removeprefix("token2wav/"): value for path, value in flat.items()})


def dit_comparison(config: OmniConfig, reference: Any, graphdef: nnx.GraphDef, params: dict) -> dict[str, Any]:
    import torch

    c, rng = config.token2wav_config.dit_config, np.random.default_rng(0)
    frames = BLOCKS * c.block_size
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    x, vector, mel = draw(1, frames, c.mel_dim), draw(1, c.enc_emb_dim), draw(1, 300, c.mel_dim)
    codes = rng.integers(0, c.num_embeds, (1, frames // c.repeats))

    @jax.jit
    def once(params):
        model = nnx.merge(graphdef, params).dit
        view = model.view(jnp.int32(0), jnp.array([frames]), BLOCKS, jnp.int32(BLOCKS))
        given = model.given(codes.reshape(1, BLOCKS, -1), model.voice(vector, mel))
        return given, jax.tree.map(lambda w: w[TIME], model.modulations()), view, model.empty_kept(1)[0]

    evaluate = jax.jit(lambda params, x, *given: nnx.merge(graphdef, params).dit(x, *given)[0])
    given, blocks = once(params), x.reshape(1, BLOCKS, c.block_size, c.mel_dim)
    inputs = {"hidden_states": torch.tensor(x), "condition_vector": torch.tensor(mel),
              "speaker_embedding": torch.tensor(vector)[:, None].repeat(1, frames, 1),
              "quantized_code": torch.tensor(codes), "time_step": torch.tensor(dit.times()[TIME])}

    def theirs():
        guided, free = reference(**inputs).chunk(2)
        return guided + dit.GUIDANCE * (guided - free)

    D, inner = c.hidden_size, c.num_attention_heads * c.head_dim
    seen = [2 if i in (*c.look_ahead_layers, *c.look_backward_layers) else 1 for i in range(c.num_hidden_layers)]
    layers = c.num_hidden_layers * (4 * D * inner + 2 * D * D * c.ff_mult) + 2 * inner * c.block_size * sum(seen)
    return {"part": "dit", "detail": f"an evaluation, {frames} frames, guided",
            "ours": Side(lambda: np.asarray(evaluate(params, blocks, *given)).reshape(x.shape)),
            "theirs": Side(theirs), "units": frames, "unit": "frames/s", "kind": "matmul",
            "work": 2 * 2 * frames * (layers + D * c.mel_dim) + 2 * frames * D * c.mel_dim}


def bigvgan_comparison(config: OmniConfig, reference: Any, graphdef: nnx.GraphDef, params: dict) -> dict[str, Any]:
    import torch

    c, frames = config.token2wav_config.bigvgan_config, BLOCKS * config.token2wav_config.dit_config.block_size
    mel = np.random.default_rng(0).normal(-3, 3, (1, frames, c.mel_dim)).astype(np.float32)
    vocode = jax.jit(lambda params, mel: nnx.merge(graphdef, params).bigvgan(mel, jnp.array([frames]))[0])
    C, T, macs = c.upsample_initial_channel, frames, 7 * frames * c.mel_dim * c.upsample_initial_channel
    for rate, taps in zip(c.upsample_rates, c.upsample_kernel_sizes, strict=True):
        macs += T * C * C // 2 * taps
        T, C = T * rate, C // 2
        macs += 6 * T * C * C * sum(c.resblock_kernel_sizes)
    return {"part": "bigvgan", "detail": f"{frames} frames", "ours": Side(lambda: np.asarray(vocode(params, mel))),
            "theirs": Side(lambda: reference(torch.tensor(mel).transpose(1, 2))), "units": frames, "unit": "frames/s",
            "kind": "matmul", "work": 2 * (macs + 7 * T * C)}


def main(path: str) -> None:
    import torch

    from tools import _measure, benchmark
    from tools.parity import relative

    benchmark.use_threads(2)
    peaks = {"matmul": benchmark.peak("matmul")}
    with torch.inference_mode():
        for fields in comparisons(OmniConfig.load(Path(path))):
            row = benchmark.measure(benchmark.Job(**fields, difference=relative), peaks, 5, 60)
            print(_measure.line(row), f"(difference {row['difference']:.1e})", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
