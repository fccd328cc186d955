"""The voice's objectives on small random networks: what they see, what they weigh, and that they learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from omni_jax import sharding
from omni_jax.config import BigVGANConfig, CodecEncoderConfig, DiTConfig, MelConfig, OmniConfig, Token2WavConfig
from omni_jax.models.codec_encoder import CodecEncoder
from omni_jax.models.dit import times
from omni_jax.models.ecapa import SpeakerEncoder
from omni_jax.models.token2wav import Token2Wav
from omni_jax.training import codebook, voice
from omni_jax.training.batch import ClipBatch
from omni_jax.training.config import DataConfig, SpeechConfig, TrainConfig
from omni_jax.weights.names import leaves, nest
from tests import tiny

MEL = MelConfig(n_fft=64, hop=10, bins=7)
DIT = DiTConfig(hidden_size=24, num_hidden_layers=4, num_attention_heads=3, head_dim=10, ff_mult=2, emb_dim=9,
                block_size=6, look_ahead_layers=(2,), look_backward_layers=(0, 3), repeats=2, num_embeds=20, mel_dim=7,
                rope_theta=10000.0, enc_emb_dim=5, enc_dim=4, enc_channels=(8, 8, 8), enc_kernel_sizes=(5, 3, 1),
                enc_dilations=(1, 2, 1), enc_attention_channels=3, enc_res2net_scale=2, enc_se_channels=6)
ENCODER = CodecEncoderConfig(hidden_size=28, num_hidden_layers=2, num_attention_heads=3, head_dim=8,
                             intermediate_size=40, mel_dim=7, emb_dim=9, block_size=6, repeats=2, look_back=1,
                             look_ahead=1, rope_theta=10000.0, rms_norm_eps=1e-6)
VOCODER = BigVGANConfig(mel_dim=7, upsample_initial_channel=8, resblock_kernel_sizes=(3,),
                        resblock_dilation_sizes=((1, 3, 5),), upsample_rates=(5, 2), upsample_kernel_sizes=(11, 4))
CONFIG = dataclasses.replace(OmniConfig.from_json(tiny.config("7b")), token2wav_config=Token2WavConfig(DIT, VOCODER))
RUN = TrainConfig("none", DataConfig(()), dtype="float32", remat="none", speech=SpeechConfig(mel=MEL, drop=0.2))
T, C, V = DIT.block_size, DIT.block_size // DIT.repeats, DIT.sounds
B, BLOCKS, REFERENCE = 4, 5, 3
# Compiling takes seconds here, and running milliseconds.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def networks():
    """({name: graphdef}, {name: params}) with random weights."""
    rng, mesh, parts = np.random.default_rng(0), sharding.make_mesh(""), {}
    draw = lambda shape: rng.normal(0, 0.05 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5, shape)
    for name, network, config in (("token2wav", Token2Wav, CONFIG.token2wav_config),
                                  ("speaker_encoder", SpeakerEncoder, DIT), ("codec_encoder", CodecEncoder, ENCODER)):
        graphdef, abstract = sharding.abstract(network, config, mesh)
        parts[name] = graphdef, jax.tree.map(lambda leaf: jnp.asarray(draw(leaf.shape), jnp.float32), abstract)
    return {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}


def sums(objective, params, batch, run=RUN):
    graphdefs = networks()[0]
    return objective({name: nnx.merge(graphdefs[name], params[name]) for name in graphdefs}, CONFIG, run, batch)


@functools.cache
def jitted(objective, run=RUN):
    return jit(lambda params, batch: sums(objective, params, batch, run))


def clips(seed=0, frames=(30, 30, 17, 24)) -> ClipBatch:
    """Sounds in which each code is a tone of its own."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, V, (B, BLOCKS, C)).astype(np.int32)
    time = np.arange(BLOCKS * T * MEL.hop)
    tones = np.sin(2 * np.pi * time * (0.02 + 0.4 * np.repeat(codes.reshape(B, -1), 2 * MEL.hop, 1) / V))
    wave = np.pad(0.3 * tones + 0.01 * rng.normal(size=tones.shape), ((0, 0), (MEL.pad, MEL.pad)))
    reference = 0.1 * rng.normal(size=(B, REFERENCE * T * MEL.hop + 2 * MEL.pad))
    return ClipBatch(wave.astype(np.float32), np.array(frames, np.int32), codes,
                     rng.normal(size=(B, DIT.enc_emb_dim)).astype(np.float32), np.array([True, False, True, False]),
                     reference.astype(np.float32), rng.integers(0, 2**32, B, np.uint32))


def row(batch, b):
    return jax.tree.map(lambda x: x[b:b + 1], batch)


def test_a_frame_sees_its_window_and_nothing_else():
    """Of the mel that is noised, and of the codes: blocks b-2 .. b+1."""
    batch = row(clips(), 0)._replace(codes=np.zeros((1, 8, C), np.int32), frames=np.array([8 * T], np.int32))
    graphdefs, params = networks()
    models = {name: nnx.merge(graphdefs[name], params[name]) for name in graphdefs}
    draws = jit(lambda batch: voice.draw(RUN, batch, CONFIG))(batch)

    def error(mel, embedded):
        return voice.flow_errors(models, RUN, batch, mel, embedded, draws)[0, 4].sum()

    inputs = [np.random.default_rng(0).normal(size=(1, 8, *size)).astype(np.float32) for size in ((T, 7), (C, 9))]
    for seen in jit(jax.grad(error, argnums=(0, 1)))(*inputs):
        assert np.flatnonzero(np.abs(seen[0]).max(axis=(1, 2))).tolist() == [2, 3, 4, 5]


def test_padding_weighs_nothing_and_rows_stand_alone():
    batch, params = clips(), networks()[1]
    together = jitted(voice.flow)(params, batch)
    assert float(together["weight"]) == batch.frames.sum()
    # Frame 16 is the last of row 2; its samples end n_fft after its first.
    wave, codes = batch.wave.copy(), batch.codes.copy().reshape(B, -1)
    wave[2, 16 * MEL.hop + MEL.n_fft:], codes[2, 9:] = 7, 3
    other = batch._replace(wave=wave, codes=codes.reshape(batch.codes.shape))
    assert float(jitted(voice.flow)(params, other)["loss"]) == float(together["loss"])
    alone = [jitted(voice.flow)(params, batch._replace(frames=np.where(np.arange(B) == b, batch.frames, 0)))
             for b in range(B)]
    assert sum(float(part["loss"]) for part in alone) == pytest.approx(float(together["loss"]), rel=1e-5)
    missing = batch._replace(codes=np.where(np.arange(BLOCKS)[:, None] == 1, -1, batch.codes))
    assert float(jitted(voice.flow)(params, missing)["weight"]) == batch.frames.sum() - B * T


def test_dropped_rows_learn_the_unguided_velocity():
    params, seeds = networks()[1], np.arange(100, dtype=np.uint32)
    many = clips()._replace(codes=np.zeros((100, BLOCKS, C)), seeds=seeds)
    draws = jit(lambda batch: voice.draw(RUN, batch, CONFIG))(many)
    assert 8 < draws.dropped.sum() < 35 and 0.4 < draws.t.mean() < 0.6
    loss = lambda batch: float(jitted(voice.flow)(params, batch)["loss"])
    kept, dropped = (clips()._replace(seeds=seeds[np.asarray(draws.dropped) == wanted][:B]) for wanted in (False, True))
    others = lambda batch: [batch._replace(codes=(batch.codes + 1) % V), batch._replace(vector=batch.vector + 1),
                            batch._replace(reference=batch.reference[::-1])]
    assert all(loss(other) == loss(dropped) for other in others(dropped))
    assert all(abs(loss(other) / loss(kept) - 1) > 1e-4 for other in others(kept))
    unnamed = kept._replace(named=np.zeros(B, bool))
    assert loss(unnamed) == loss(unnamed._replace(vector=kept.vector + 1)) != loss(kept)


def test_rows_of_any_time_are_the_solvers_evaluation():
    """Two plain rows, one as dropped rows are, make a guided evaluation."""
    graphdefs, params = networks()
    dit = nnx.merge(graphdefs["token2wav"], params["token2wav"]).dit
    rng, vector = np.random.default_rng(0), np.ones((1, 5), np.float32)
    x, mel = (rng.normal(size=size).astype(np.float32) for size in ((1, 3, T, 7), (1, 18, 7)))
    codes, frames, time = rng.integers(0, V, (1, 3, C)), jnp.array([16]), 11

    @jit
    def both():
        table = jax.tree.map(lambda w: w[time], dit.modulations())
        guided = dit(x, dit.given(codes, dit.voice(vector, mel)), table,
                     dit.view(jnp.int32(0), frames, 3, jnp.int32(3)))[0]
        voices = dit.guided_voice(np.concatenate([vector, 0 * vector]), np.concatenate([mel, 0 * mel]))
        given = dit.given_embedded(dit.codec_embed(np.concatenate([codes, 0 * codes])), voices)
        t = jnp.full(2, times()[time])
        plain = dit.velocity(np.concatenate([x, x]), given, dit.modulations(t).of_rows(),
                             dit.view(jnp.int32(0), jnp.tile(frames, 2), 3, jnp.int32(3), guided=False), "full")
        return guided[0], plain[0] + 0.5 * (plain[0] - plain[1])

    guided, plain = (np.asarray(out).reshape(-1, 7)[:16] for out in both())
    np.testing.assert_allclose(plain, guided, atol=2e-5)


def test_codes_and_vectors_are_drawn_to_each_other():
    """The parts of the codec's loss, computed apart."""
    batch, (graphdefs, params) = clips(), networks()
    found = jitted(voice.codec)(params, batch)
    encoder = nnx.merge(graphdefs["codec_encoder"], params["codec_encoder"])
    z = jit(lambda batch: encoder(voice.clip_mel(RUN, batch), batch.frames))(batch)
    table = np.asarray(params["token2wav"]["dit"]["codec_embed"]["weight"], np.float64)[:V]
    z = np.asarray(z, np.float64)
    codes = ((z[..., None, :] - table) ** 2).sum(-1).argmin(-1)
    weights = np.clip(batch.frames[:, None] - 2 * np.arange(BLOCKS * C), 0, 2).reshape(codes.shape)
    expected = (weights * ((z - table[codes]) ** 2).mean(-1)).sum()
    assert float(found["codebook"]) == pytest.approx(expected, rel=1e-4)
    assert float(found["commitment"]) == pytest.approx(expected, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(found["flow"]) + 1.25 * expected, rel=1e-4)
    assert float(found["weight"]) == batch.frames.sum()
    seen = jax.tree.map(np.asarray, found["seen"])
    np.testing.assert_array_equal(seen["usage"], np.bincount(codes[weights > 0], minlength=V))
    vectors, single = z[weights > 0], seen["drawn"] == 1
    assert single.any() and seen["drawn"].sum() == B * codebook.SAMPLES
    gaps = np.abs(seen["vectors"][single][:, None] - vectors).max(-1).min(-1)
    assert gaps.max() < 1e-4


def learnt(objective, learns, steps, rate, batches=2):
    """Mean metrics of the first and the last steps, while networks learn, all but the vocoder."""
    flat = {path: leaf for path, leaf in leaves(networks()[1]) if "bigvgan" not in path}
    params = {path: leaf for path, leaf in flat.items() if path.startswith(learns)}
    frozen = {path: leaf for path, leaf in leaves(networks()[1]) if path not in params}
    optimizer = optax.adam(rate)
    state, data = optimizer.init(params), [clips(seed) for seed in range(batches)]

    def loss(params, batch):
        found = sums(objective, nest(dict(sorted({**frozen, **params}.items()))), batch)
        return found["loss"] / found["weight"], {name: found[name] / found["weight"]
                                                 for name in found.keys() - {"seen", "weight"}}

    @jit
    def step(params, state, batch):
        gradient, metrics = jax.grad(loss, has_aux=True)(params, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, metrics

    history = []
    for i in range(steps):
        batch = data[i % batches]._replace(seeds=np.arange(B, dtype=np.uint32) + i * B)
        params, state, metrics = step(params, state, batch)
        history.append(jax.tree.map(float, metrics))
    mean = lambda part: {name: np.mean([metrics[name] for metrics in part]) for name in part[0]}
    return mean(history[:5]), mean(history[-5:])


@pytest.mark.slow
def test_flow_learns():
    before, after = learnt(voice.flow, ("token2wav", "speaker_encoder"), 40, 5e-3)
    assert after["loss"] < 0.5 * before["loss"]


def test_codec_learns():
    before, after = learnt(voice.codec, ("token2wav", "speaker_encoder", "codec_encoder"), 40, 5e-3)
    assert after["flow"] < 0.5 * before["flow"] and after["codebook"] < before["codebook"]


def test_distill_learns():
    before, after = learnt(voice.distill, ("codec_encoder",), 80, 5e-3)
    assert before["accuracy"] < 0.3 and after["accuracy"] > 0.7 and after["loss"] < before["loss"]


def test_an_encoder_alone_finds_codes_for_a_dit_that_stays():
    before, after = learnt(voice.codec, ("codec_encoder",), 40, 5e-3)
    assert after["flow"] < 0.98 * before["flow"]


def test_what_is_no_sound_is_not_read_back():
    batch, params = clips(), networks()[1]
    found = jitted(voice.distill)(params, batch)
    codes = batch.codes.copy()
    codes[0, 0, 0], codes[1, 2, 1] = -1, V  # none given; a mark
    assert float(found["weight"]) == (-(-batch.frames // 2)).sum()
    assert float(jitted(voice.distill)(params, batch._replace(codes=codes))["weight"]) == float(found["weight"]) - 2
    late = batch.codes.reshape(B, -1).copy()
    late[2, 9:] = -1  # beyond the row's 17 frames
    late = batch._replace(codes=late.reshape(codes.shape))
    assert float(jitted(voice.distill)(params, late)["loss"]) == float(found["loss"])


@pytest.mark.slow
def test_bfloat16_is_near():
    batch, params = clips(), networks()[1]
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    exact, rounded = (jitted(voice.codec)(weights, batch) for weights in (params, half))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rounded))
    assert float(rounded["flow"]) == pytest.approx(float(exact["flow"]), rel=0.02)
    assert float(rounded["codebook"]) == pytest.approx(float(exact["codebook"]), rel=0.05)
