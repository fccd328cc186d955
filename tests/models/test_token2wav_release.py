"""DiT and BigVGAN of the released size, random weights, beside the reference; and the name table's shapes."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from omni_jax.inference import token2wav
from omni_jax.models import dit
from omni_jax.sharding import make_mesh
from omni_jax.weights.names import rows
from tests.models.token2wav import RELEASE, config_of, omni_config, ours, reference, relative


def test_names_and_shapes_of_the_reference():
    from transformers import Qwen2_5OmniToken2WavConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniToken2WavModel

    with torch.device("meta"):
        model = Qwen2_5OmniToken2WavModel(Qwen2_5OmniToken2WavConfig(**RELEASE))
    theirs = {f"token2wav.{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    table = rows(omni_config(RELEASE), ["token2wav"])
    assert {name: row.file_shape for row in table for name in row.names()} == theirs
    assert sum(np.prod(shape) for shape in theirs.values()) == 333_607_760 + 115_443_504


@pytest.mark.slow
def test_released_sizes():
    model = reference(release=True)
    graphdef, params = ours(model, RELEASE)
    rng, frames = np.random.default_rng(0), 36
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    noise, vector, mel = draw(1, frames, 80), draw(1, 192), draw(1, 50, 80)
    codes = rng.integers(0, 8194, (1, frames // 2))
    time = 5
    with torch.no_grad():
        out = model.code2wav_dit_model(torch.tensor(noise), torch.tensor(mel), torch.tensor(vector)[:, None].repeat(
            1, frames, 1), torch.tensor(codes), torch.tensor(dit.times()[time]))
        # In float64: with these weights the reference's own float32 is 9e-6 from it, most of the bar below.
        exact = copy.deepcopy(model.code2wav_bigvgan_model).double()
        wave = exact(torch.tensor(mel[:, :20], dtype=torch.float64).transpose(1, 2)).numpy()

    @jax.jit
    def evaluate(params):
        network = nnx.merge(graphdef, params).dit
        given = network.given(jnp.pad(codes, ((0, 0), (0, 6))).reshape(1, 2, 12), network.voice(vector, mel))
        view = network.view(jnp.int32(0), jnp.array([frames]), 2, jnp.int32(2))
        x = jnp.pad(noise, ((0, 0), (0, 12), (0, 0))).reshape(1, 2, 24, 80)
        return network(x, given, jax.tree.map(lambda w: w[time], network.modulations()), view)[0]

    guided, free = out.chunk(2)
    assert relative(evaluate(params).reshape(1, 48, 80)[:, :frames], guided + 0.5 * (guided - free)) < 1e-5
    vocode = jax.jit(lambda params: nnx.merge(graphdef, params).bigvgan(mel[:, :20], jnp.array([20])))
    assert np.abs(wave).max() > 0.01
    assert relative(vocode(params)[0], wave) < 1e-5


@pytest.mark.slow
def test_seams_of_the_released_vocoder():
    """Windows of two blocks, and of eight, against the clip in one piece."""
    graphdef, params = ours(reference(release=True), RELEASE)
    synthesizer = token2wav.prepare(config_of(RELEASE), graphdef, params, make_mesh("data=1"))
    mel = np.random.default_rng(0).normal(-3, 3, (1, 250, 80)).astype(np.float32)
    at_once = jax.jit(lambda params: nnx.merge(graphdef, params).bigvgan(mel, jnp.array([250])))(params)[0]
    assert np.abs(at_once).max() > 0.01
    for blocks in (2, 8):
        windows, = token2wav.vocode(synthesizer, jnp.asarray(mel), np.array([250]), blocks)
        assert relative(windows, at_once) < 1e-5
