"""The command that makes a checkpoint small enough to give away."""

import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import omni_jax
from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.weights import Tensor, find_speakers, read_tensors
from tools import pack

ASKED = [{"role": "user", "content": "Which day is it?"}]


@pytest.mark.parametrize("name, dtype", [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_a_whole_checkpoint_in_half_the_bytes(talking_7b, tmp_path, name, dtype):
    told = pack.main([str(talking_7b), str(tmp_path / "small"), "--dtype", name])
    config = OmniConfig.load(tmp_path / "small")
    packed, before = (read_tensors(directory, config) for directory in (tmp_path / "small", talking_7b))
    assert set(packed) == set(before)
    assert 2 * told["bytes"] == sum(tensor.nbytes for tensor in before.values())
    for tensor in before.values():
        np.testing.assert_array_equal(packed[tensor.name].load(), tensor.load().astype(dtype))
    assert list(find_speakers(tmp_path / "small")) == list(find_speakers(talking_7b)) == told["speakers"]
    assert config.to_json()["torch_dtype"] == name


def test_what_only_training_needs_stays_behind(talking_7b, tmp_path):
    shutil.copytree(talking_7b, tmp_path / "trained")
    for name in ("codec_encoder.json", "codec_encoder.safetensors", "speaker_encoder.safetensors"):
        (tmp_path / "trained" / name).write_text("{}")
    pack.main([str(tmp_path / "trained"), str(tmp_path / "small")])
    assert not list((tmp_path / "small").glob("*_encoder.*"))
    assert (tmp_path / "small" / "tokenizer.json").exists()


def test_encoders_in_a_directory_of_their_own(talking_7b, tmp_path):
    trained, wide = tmp_path / "trained", np.linspace(-1, 1, 6, dtype=np.float32)
    shutil.copytree(talking_7b, trained)
    (trained / "codec_encoder.json").write_text('{"encoder": 1}')
    save_file({"input.weight": wide}, trained / "codec_encoder.safetensors")
    pack.main([str(trained), str(tmp_path / "small"), "--encoders", str(tmp_path / "encoders")])
    assert (tmp_path / "encoders" / "codec_encoder.json").read_text() == '{"encoder": 1}'
    packed = load_file(tmp_path / "encoders" / "codec_encoder.safetensors")["input.weight"]
    assert packed.dtype == np.float16 and np.array_equal(packed, wide.astype(np.float16))
    with pytest.raises(OmniError, match="encoders: exists; give a new directory"):
        pack.main([str(trained), str(tmp_path / "none"), "--encoders", str(tmp_path / "encoders")])
    with pytest.raises(OmniError, match="no network lies beside"):
        pack.main([str(tmp_path / "small"), str(tmp_path / "none"), "--encoders", str(tmp_path / "others")])
    assert not (tmp_path / "none").exists()


def test_the_thinker_alone_answers_as_before(talking_7b, talking, tmp_path):
    pack.main([str(talking_7b), str(tmp_path / "small"), "--dtype", "float32", "--no-speech"])
    small = omni_jax.load(tmp_path / "small", mesh="")
    options = {"max_new_tokens": 8, "return_audio": False}
    assert small.generate(ASKED, **options).token_ids == talking.generate(ASKED, **options).token_ids
    with pytest.raises(OmniError, match="has no Talker"):
        small.generate(ASKED, return_audio=True)


@pytest.mark.parametrize("keep", [None, "thinker.visual"])
def test_weights_between_two_checkpoints(talking_7b, tmp_path, keep):
    doubled = tmp_path / "doubled"
    shutil.copytree(talking_7b, doubled)
    for file in doubled.glob("*.safetensors"):
        arrays = load_file(file)
        save_file({name: (2 * array.astype(np.float32)).astype(array.dtype) for name, array in arrays.items()}, file)
    pack.main([str(talking_7b), str(tmp_path / "out"), "--blend", str(doubled), "0.25", "--dtype", "float32",
               *(["--keep", keep] if keep else [])])
    config = OmniConfig.load(talking_7b)
    found, ours = (read_tensors(directory, config) for directory in (tmp_path / "out", talking_7b))
    assert set(found) == set(ours)
    for name, tensor in ours.items():
        factor = 1 if keep and name.startswith(keep) else 1.25
        np.testing.assert_allclose(found[name].load(), factor * tensor.load().astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("other, share, told", [
    ("nowhere", "0.5", "nowhere"), (".", "half", "SHARE half must be a number from 0 to 1"), (".", "1.5", "SHARE 1.5")])
def test_bad_blends(talking_7b, tmp_path, other, share, told):
    with pytest.raises(OmniError, match=told):
        pack.main([str(talking_7b), str(tmp_path / "out"), "--blend", str(tmp_path / other), share])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, told", [
    (("--keep", "thinker.visual"), "--keep: goes with --blend"),
    (("--keep", "eyes", "--blend", "", "0.5"), "--keep eyes: begins no tensor's name")])
def test_what_cannot_be_kept(talking_7b, tmp_path, options, told):
    options = [each or str(talking_7b) for each in options]
    with pytest.raises(OmniError, match=told):
        pack.main([str(talking_7b), str(tmp_path / "out"), *options])


def test_what_float16_cannot_hold_is_an_error():
    huge = Tensor("huge", np.dtype(np.float32), (1,), lambda: np.float32([1e6]))
    with pytest.raises(OmniError, match=r"huge has values beyond the range of float16"):
        pack.cast(huge, np.dtype(np.float16)).load()


def test_no_directory(tmp_path):
    with pytest.raises(OmniError, match="is not a directory"):
        pack.main([str(tmp_path / "nowhere"), str(tmp_path / "out")])
