"""Stretches of recordings: what is in them, that codes stay with their sound, and what is told of bad ones."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni_jax import OmniError
from omni_jax.training.clips import Clips, elsewhere
from omni_jax.training.config import DataConfig, SpeechConfig, TrainConfig
from omni_jax.training.manifests import Line
from omni_jax.weights.speakers import Speaker
from tests.models.token2wav import TINY, config_of

CONFIG = config_of(TINY)
CONFIG = dataclasses.replace(CONFIG, dit_config=dataclasses.replace(CONFIG.dit_config, num_embeds=5000))
D, CODES, SAMPLES = CONFIG.dit_config, CONFIG.codes_per_block, CONFIG.samples_per_code
MEL = dataclasses.replace(SpeechConfig().mel, n_fft=128, hop=CONFIG.bigvgan_config.samples_per_frame, bins=D.mel_dim)
RUN = TrainConfig("", DataConfig(()), speech=SpeechConfig(clip=3, reference=2, mel=MEL, named=True))
SPEAKERS = {"Ann": Speaker(5, np.ones((1, D.enc_emb_dim), np.float32), np.zeros((1, 40, D.mel_dim), np.float32))}
CLIPS = Clips(RUN, CONFIG, SPEAKERS)


def line(folder, wave, rate=24000, **fields):
    soundfile.write(folder / "a.wav", wave, rate, subtype="FLOAT")
    content = [{"type": "text", "text": "Hi"}, {"type": "audio", "audio": "a.wav", **fields}]
    record = {"messages": [{"role": "user", "content": "Speak"}, {"role": "assistant", "content": content}]}
    return Line("m:1", json.dumps(record).encode(), "messages", Path(folder))


def ramp(samples):
    return (np.arange(samples) / samples - 0.5).astype(np.float32)


def test_codes_stay_with_their_sound(tmp_path):
    n = 5 * CODES * 3
    wave = ramp(n * SAMPLES)
    read = lambda seed: CLIPS.read(line(tmp_path, wave, codes=list(range(n)), speaker="Ann"),
                                   np.random.default_rng(seed))
    clip, firsts, pad = read(0).example, set(), MEL.pad
    assert clip.frames == 3 * D.block_size and clip.codes.shape == (3, CODES)
    for seed in range(8):
        clip = read(seed).example
        first = int(clip.codes[0, 0])
        firsts.add(first)
        np.testing.assert_array_equal(clip.codes.ravel(), first + np.arange(3 * CODES))
        np.testing.assert_allclose(clip.wave[pad:-pad], wave[first * SAMPLES:(first + 3 * CODES) * SAMPLES], atol=1e-7)
        if first * SAMPLES >= pad:
            np.testing.assert_allclose(clip.wave[:pad], wave[first * SAMPLES - pad:first * SAMPLES], atol=1e-7)
        assert clip.named and (clip.vector == 1).all() and len(clip.reference) == 2 * CODES * SAMPLES + 2 * pad
    assert len(firsts) > 4
    assert read(3).example.seed == read(3).example.seed != read(4).example.seed


@pytest.mark.parametrize("samples, length, first, taken", [
    (100, 20, 0, 30), (100, 20, 40, 30), (100, 20, 70, 30), (51, 20, 20, 30), (50, 20, 0, 30), (50, 20, 20, 30)])
def test_a_reference_is_other_sound(samples, length, first, taken):
    """Where there is room for it, and everywhere there is."""
    begins = {elsewhere(samples, length, first, taken, np.random.default_rng(seed)) for seed in range(500)}
    assert begins == {begin for begin in range(samples - length + 1)
                      if begin + length <= first or begin >= first + taken}


@pytest.mark.parametrize("samples, length, first, taken, expected", [
    (40, 20, 0, 30, 20), (40, 20, 10, 30, 0), (30, 20, 0, 30, 10), (20, 20, 0, 10, 0), (10, 20, 0, 30, 0)])
def test_without_room_a_reference_shares_as_little_as_it_can(samples, length, first, taken, expected):
    assert elsewhere(samples, length, first, taken, np.random.default_rng(0)) == expected


def test_short_recordings_end_in_padding(tmp_path):
    codes = 24000 // SAMPLES // 2
    clip = dataclasses.replace(CLIPS, run=dataclasses.replace(RUN, speech=dataclasses.replace(
        RUN.speech, clip=2 * codes // CODES))).read(line(tmp_path, ramp(codes * SAMPLES + 7)), np.random.default_rng(0))
    assert clip.example.frames == codes * D.repeats and (clip.example.codes == -1).all() and not clip.example.named
    end = MEL.pad + codes * SAMPLES + 7
    assert (clip.example.wave[end + MEL.pad:] == 0).all() and clip.example.wave[end - 1] != 0
    assert clip.cost.tolist() == [1] and clip.tokens == clip.example.frames


def test_rows_as_a_batch(tmp_path):
    example = CLIPS.read(line(tmp_path, ramp(24000)), np.random.default_rng(0)).example
    batch = CLIPS.to_batch([[example], []], 0)
    assert batch.frames.tolist()[1] == 0 and batch.wave.dtype == np.float32 and batch.seeds.dtype == np.uint32
    assert all(len(field) == 2 for field in batch)


@pytest.mark.parametrize(("wave", "rate", "fields", "said"), [
    (np.zeros(24000), 24000, {}, "silent"), (ramp(3000), 24000, {}, "long; give"),
    (np.sign(ramp(24000)), 24000, {}, "clipped"), (ramp(8000), 8000, {}, "8,000 Hz"),
    (np.full(24000, np.nan), 24000, {}, "finite"), (ramp(24000), 24000, {"codes": [10**6]}, "outside"),
    (ramp(24000), 24000, {"codes": [1, 2, 3]}, "has 3 codes and sound for"),
])
def test_bad_recordings(tmp_path, wave, rate, fields, said):
    with pytest.raises(OmniError, match=said):
        CLIPS.read(line(tmp_path, wave.astype(np.float32), rate, **fields), np.random.default_rng(0))
