"""Sound to codes and to speakers, by random networks beside a small checkpoint."""

import dataclasses
import shutil

import numpy as np
import pytest

from omni_jax import sharding
from omni_jax.config import CodecConfig, CodecEncoderConfig, OmniConfig
from omni_jax.errors import OmniError
from omni_jax.inference.codec import Codec
from omni_jax.models.codec_encoder import CodecEncoder
from omni_jax.models.ecapa import SpeakerEncoder
from omni_jax.weights import beside
from omni_jax.weights.names import leaves

RATE = 24_000


def sizes_of(config):
    dit = config.token2wav_config.dit_config
    encoder = CodecEncoderConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, head_dim=4,
                                 intermediate_size=14, mel_dim=dit.mel_dim, emb_dim=dit.emb_dim,
                                 block_size=dit.block_size, repeats=dit.repeats, look_back=1, look_ahead=1,
                                 rope_theta=1e4, rms_norm_eps=1e-6)
    return CodecConfig(encoder, config.token2wav_config.mel)


def write_networks(directory):
    """A random codec encoder and speaker encoder beside a checkpoint."""
    config, random = OmniConfig.load(directory), np.random.default_rng(0)
    sizes, params = sizes_of(config), {}
    for name, network, part in (("codec_encoder", CodecEncoder, sizes.encoder),
                                ("speaker_encoder", SpeakerEncoder, config.token2wav_config.dit_config)):
        for path, leaf in leaves(sharding.abstract(network, part, sharding.make_mesh(""))[1], f"{name}/"):
            params[path] = random.standard_normal(leaf.shape) * max(np.prod(leaf.shape[1:]), 25) ** -0.5
            params[path] = np.ones(leaf.shape) if path.endswith("scale") else params[path]
    for leaf in ("weight", "bias"):  # vectors of the length of the table's rows, so that codes differ
        params[f"codec_encoder/output/{leaf}"] *= float(Codec.load(directory).table.std())
    beside.save(directory, params, sizes)


@pytest.fixture(scope="module")
def directory(talking_7b, tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "checkpoint"
    shutil.copytree(talking_7b, path)
    write_networks(path)
    return path


@pytest.fixture(scope="module")
def codec(directory):
    return Codec.load(directory, needs=beside.NETWORKS)


def speech(samples, seed=1):
    """A tone a quarter of a block long after the other, over noise, each of a pitch and a loudness of its own."""
    random = np.random.default_rng(seed)
    each = lambda low, high: np.repeat(random.uniform(low, high, samples // 180 + 1), 180)[:samples]
    tones = 10 ** each(-3, -0.5) * np.sin(2 * np.pi * np.cumsum(10 ** each(2, 4)) / RATE)
    return (tones + 1e-3 * random.standard_normal(samples)).astype(np.float32)


def test_codes_of_a_long_clip_are_those_of_its_stretches(codec):
    """The recording is longer than a window (32 blocks of 720 samples); what lies far off changes nothing."""
    wave = speech(3 * 32 * 720 + 1234)
    codes = codec.encode(wave)
    assert codes.dtype == np.int32 and len(codes) == len(wave) // 60
    assert codes.min() >= 0 and codes.max() < 299 and len(set(codes)) > 20
    first, last = 20, 60  # blocks; a code sees two to each side, and their mels a block and a half
    stretch = codec.encode(wave[first * 720:last * 720])
    inner = slice(4 * 12, -4 * 12)
    np.testing.assert_array_equal(stretch[inner], codes[first * 12:last * 12][inner])
    assert (stretch != codes[first * 12:last * 12]).any()  # the ends


def test_speaker(codec):
    wave = speech(30 * 1000)
    speaker = codec.speaker(wave, 289)
    assert speaker.bos_token == 289 and speaker.cond.shape == (1, 192) and speaker.ref_mel.shape == (1, 1000, 80)
    np.testing.assert_array_equal(speaker.ref_mel[0, :300], codec.log_mel(wave, 300))
    assert np.abs(codec.speaker(speech(30 * 1000, 2), 289).cond - speaker.cond).max() > 1e-4


@pytest.mark.parametrize("wave, sentence", [
    (np.zeros(RATE, np.float32), "silent"), (np.ones(RATE, np.float32), "clipped"),
    (speech(RATE // 5), "0.20 s long"), (np.full(RATE, np.nan, np.float32), "finite")])
def test_bad_sound(codec, wave, sentence):
    for make in (codec.encode, lambda wave: codec.speaker(wave, 289)):
        with pytest.raises(OmniError, match=sentence):
            make(wave)


def test_without_networks(talking_7b, codec):
    with pytest.raises(OmniError, match=r"codec_encoder.safetensors: is missing.*train one"):
        Codec.load(talking_7b, needs=("codec_encoder",))
    bare = Codec.load(talking_7b)
    assert bare.mel == codec.mel and not bare.networks
    for make in (bare.encode, lambda wave: bare.speaker(wave, 289)):
        with pytest.raises(OmniError, match="is missing"):
            make(speech(RATE))


@pytest.mark.parametrize("change, sentence", [
    (lambda sizes: dataclasses.replace(sizes, encoder=dataclasses.replace(sizes.encoder, emb_dim=21)), "emb_dim 21"),
    (lambda sizes: dataclasses.replace(sizes, mel=dataclasses.replace(sizes.mel, hop=240)), "hop 240")])
def test_sizes_of_another_checkpoint(talking_7b, tmp_path, change, sentence):
    path = shutil.copytree(talking_7b, tmp_path / "checkpoint")
    beside.save(path, {"codec_encoder/x": np.zeros(1)}, change(sizes_of(OmniConfig.load(path))))
    with pytest.raises(OmniError, match=f"codec_encoder.json.*{sentence}"):
        Codec.load(path)
