"""The DiT and its solver beside the reference's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from omni_jax.models import dit
from tests.models.token2wav import TINY, config_of, ours, reference, relative

CONFIG = config_of(TINY)
D = CONFIG.dit_config
T = D.block_size


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def case(frames, batch=2, seed=0):
    """Noise, codes, speaker vectors and a reference mel, with a clip that ends inside a block."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, D.codec_rows, (batch, frames // D.repeats))
    return draw(batch, frames, D.mel_dim, seed=seed), codes, draw(batch, D.enc_emb_dim), draw(batch, 31, D.mel_dim)


def in_blocks(x, blocks, axis=1):
    """Padded with zeros and split into blocks."""
    width = blocks * (T if x.dtype == np.float32 else T // D.repeats)
    x = np.pad(x, [(0, 0), (0, width - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], blocks, -1, *x.shape[2:])


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "stacked"])
def model(request):
    graphdef, params = ours(reference(), TINY, scanned=request.param)
    return nnx.merge(graphdef, params).dit


def whole(model, noise, codes, speaker, mel, extra=0, solve=True, time=None):
    frames = noise.shape[1]
    blocks = -(-frames // T) + extra
    given = model.given(in_blocks(codes, blocks), model.voice(speaker, mel))
    view = model.view(jnp.int32(0), jnp.full(len(noise), frames), blocks, jnp.int32(blocks))
    x = in_blocks(noise, blocks)
    table = model.modulations()
    if solve:
        out, _ = jax.jit(lambda x, given, table: dit.solve(model, x, given, table, view))(x, given, table)
    else:
        out, _ = model(x, given, jax.tree.map(lambda w: w[time], table), view)
    return np.asarray(out).reshape(len(noise), -1, D.mel_dim)[:, :frames]


@pytest.mark.parametrize("frames", [2, 24, 62, 120])
def test_one_evaluation(model, frames):
    noise, codes, speaker, mel = case(frames)
    time = 17
    with torch.no_grad():
        out = reference().code2wav_dit_model(
            torch.tensor(noise), torch.tensor(mel), torch.tensor(speaker)[:, None].repeat(1, frames, 1),
            torch.tensor(codes), torch.tensor(dit.times()[time]))
    guided, free = out.chunk(2)
    expected = guided + 0.5 * (guided - free)
    assert relative(whole(model, noise, codes, speaker, mel, solve=False, time=time), expected) < 1e-5
    assert relative(whole(model, noise, codes, speaker, mel, 2, solve=False, time=time), expected) < 1e-5


@pytest.mark.parametrize("steps", [9, 4, 1])
def test_times_are_the_solvers(monkeypatch, steps):
    seen = []
    module = reference().code2wav_dit_model
    monkeypatch.setattr(module, "forward", lambda **kw: seen.append(kw["time_step"]) or torch.zeros(2, 24, D.mel_dim))
    module.sample(torch.zeros(1, D.enc_emb_dim), torch.zeros(1, 31, D.mel_dim), torch.zeros(1, 12, dtype=torch.long),
                  num_steps=steps + 1)
    moments = [3 * step + stage for step in range(steps) for stage in range(4)]
    np.testing.assert_allclose(dit.times(steps)[moments], torch.stack(seen).numpy(), atol=6e-8)
    assert len(dit.times(steps)) == 3 * steps + 1 and len(dit.times()) == 28


def solved_by_reference(model, noise, codes, speaker, mel):
    """The reference's own whole-clip solve from given noise, in the model's dtype."""
    module, dtype = model.code2wav_dit_model, next(model.parameters()).dtype
    real, torch.randn = torch.randn, lambda shape, **kw: torch.tensor(noise, dtype=dtype)
    try:
        out = module.sample(torch.tensor(speaker, dtype=dtype), torch.tensor(mel, dtype=dtype), torch.tensor(codes))
    finally:
        torch.randn = real
    return out.transpose(1, 2).numpy()


@pytest.mark.parametrize("frames", [2, pytest.param(24, marks=pytest.mark.slow), 62])
def test_whole_solve(model, frames):
    inputs = case(frames)
    expected = solved_by_reference(reference(), *inputs)
    exact = solved_by_reference(reference_in_double(), *inputs)
    own = np.abs(expected - exact).max()
    assert np.abs(expected).max() > 1
    assert np.abs(whole(model, *inputs) - exact).max() < 4 * own


def reference_in_double():
    import copy

    return copy.deepcopy(reference()).double()


def test_an_evaluation_reads_two_blocks_back_and_one_ahead(model):
    noise, codes, speaker, mel = case(8 * T, batch=1)
    given = model.given(in_blocks(codes, 8), model.voice(speaker, mel))
    view = model.view(jnp.int32(0), jnp.array([8 * T]), 8, jnp.int32(8))
    table = jax.tree.map(lambda w: w[9], model.modulations())
    seen = jax.grad(lambda x: model(x, given, table, view)[0][0, 4].sum())(in_blocks(noise, 8))
    assert np.flatnonzero(np.abs(seen[0]).max(axis=(1, 2))).tolist() == [2, 3, 4, 5]
