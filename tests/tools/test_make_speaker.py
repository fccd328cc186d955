"""A few seconds of a voice to a speaker of a checkpoint."""

import shutil

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.inference.codec import Codec
from omni_jax.models.mel import log_mel
from omni_jax.training.fit_voice import clip_of
from omni_jax.weights import find_speakers
from tests.inference.test_codec import RATE, speech, write_networks
from tests.tiny import write_checkpoint
from tests.tools.test_make_codes import write_sound
from tools import make_speaker


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("voice") / "checkpoint", "7b", speech=True, dtype="float32", seed=1)
    write_networks(path)
    return path


@pytest.fixture
def directory(original, tmp_path):
    return shutil.copytree(original, tmp_path / "checkpoint")


@pytest.fixture
def sound(tmp_path):
    write_sound(tmp_path / "ada.wav", speech(RATE))
    return str(tmp_path / "ada.wav")


def test_encoded(directory, sound):
    before = find_speakers(directory)
    told = make_speaker.main([str(directory), sound, "Ada", "--bos-token=300", "--seconds=0.5"])
    after = find_speakers(directory)
    assert list(after) == [*before, "Ada"] and told["bos_token"] == 300 and told["seconds_of_speech"] == 0.5
    for name, voice in before.items():
        np.testing.assert_array_equal(after[name].cond, voice.cond)
    expected = Codec.load(directory).speaker(make_speaker.load_speech(sound)[:RATE // 2], 300)
    np.testing.assert_array_equal(after["Ada"].cond, expected.cond)
    np.testing.assert_array_equal(after["Ada"].ref_mel, expected.ref_mel)
    assert after["Ada"].bos_token == 300 and after["Ada"].ref_mel.shape == (1, RATE // 2 // 30, 80)


@pytest.mark.slow
def test_fitted(directory, sound):
    """Without a speaker encoder: the loss on times and noises that no step saw falls, and nothing else changes."""
    (directory / "speaker_encoder.safetensors").unlink()
    before, weights = find_speakers(directory), (directory / "model.safetensors").read_bytes()
    told = make_speaker.main([str(directory), sound, "Ada", "--bos-token=300", "--fit", "--seconds=0.4", "--steps=25",
                              "--rate=0.05"])
    assert told["loss_after"] < 0.97 * told["loss_before"]
    moved = np.abs(find_speakers(directory)["Ada"].cond - np.mean([voice.cond for voice in before.values()], axis=0))
    assert 0.05 < moved.max() < 25 * 0.05 and moved.min() < 0.5
    assert (directory / "model.safetensors").read_bytes() == weights


def test_the_clip_that_is_fitted(original):
    """All rows are the recording; its codes stand for all frames that count."""
    codec, config = Codec.load(original), OmniConfig.load(original)
    wave = speech(9_617)
    batch = clip_of(config, codec.mel, wave, codec.encode(wave))
    codes, (blocks, per_block) = len(wave) // 60, batch.codes.shape[1:]
    assert (batch.frames == 2 * codes).all() and per_block == 12 and blocks == -(-codes // 12)
    assert (batch.codes.reshape(4, -1)[:, codes:] == -1).all() and (batch.codes.reshape(4, -1)[:, :codes] >= 0).all()
    mel = log_mel(batch.wave[:1], codec.mel)[0]
    np.testing.assert_allclose(mel[:2 * codes], codec.log_mel(wave, 2 * codes), atol=1e-5)
    np.testing.assert_allclose(log_mel(batch.reference[:1], codec.mel)[0], mel[:2 * codes], atol=1e-5)
    assert mel.shape[0] == blocks * 24


def test_the_next_free_token(directory, sound):
    with pytest.raises(OmniError, match="--bos-token: 487 is not a token of this checkpoint, which has 487"):
        make_speaker.main([str(directory), sound, "Ada"])
    speakers = find_speakers(directory)
    speakers = {"Eve": make_speaker.Speaker(290, *(getattr(speakers["Ethan"], field) for field in ("cond", "ref_mel")))}
    make_speaker.replace_speakers(directory, speakers)
    assert make_speaker.main([str(directory), sound, "Ada", "--seconds=0.4"])["bos_token"] == 291


@pytest.mark.parametrize("arguments, sentence", [
    (["Ethan"], "Ethan' is there already"), (["Ada", "--bos-token=9000"], "9000 is not a token"),
    (["Ada", "--bos-token=300", "--seconds=0.1"], "0.10 s long"),
    (["Ada", "--bos-token=300", "--steps=0"], "must be above 0")])
def test_what_is_wrong_is_told(directory, sound, arguments, sentence):
    before = (directory / "spk_dict.pt").read_bytes()
    with pytest.raises(OmniError, match=sentence):
        make_speaker.main([str(directory), sound, *arguments])
    assert (directory / "spk_dict.pt").read_bytes() == before


def test_networks_that_are_missing(talking_7b, sound):
    with pytest.raises(OmniError, match="no speaker encoder; give --fit"):
        make_speaker.main([str(talking_7b), sound, "Ada", "--bos-token=300"])
    with pytest.raises(OmniError, match="no codec encoder; train one"):
        make_speaker.main([str(talking_7b), sound, "Ada", "--bos-token=300", "--fit"])
