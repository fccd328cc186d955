"""What a run starts from."""

import numpy as np
import pytest

from omni_jax import OmniError
from omni_jax.training import setup
from omni_jax.training.config import LoraConfig
from omni_jax.weights import read_directory
from tests.training.conftest import changed
from tests.weights.test_foreign import audio, language


@pytest.mark.parametrize("lora", [None, LoraConfig(2, 4.0)])
def test_parts_of_other_models(run, checkpoint_7b, tmp_path, lora, capsys):
    audio().save_pretrained(tmp_path / "whisper")
    language().save_pretrained(tmp_path / "qwen")
    run = changed(run, audio=str(tmp_path / "whisper"), language=str(tmp_path / "qwen"), lora=lora,
                  train=("thinker/decoder/*",))
    found = setup.prepare(run)
    state, frozen = setup.load(found, progress=True)
    assert "note: " in (told := capsys.readouterr().err) and "its vocabulary has 471 rows" in told
    params = {**state.params, **frozen}
    assert set(state.params) == set(found.abstract.params) and params.keys() - set(state.params) == set(found.frozen)
    whisper, qwen, start = map(read_directory, (tmp_path / "whisper", tmp_path / "qwen", checkpoint_7b))
    same = lambda path, tensor: np.testing.assert_array_equal(np.asarray(params[path]), tensor.load())
    same("thinker/audio/conv2/weight", whisper["model.encoder.conv2.weight"])
    same("thinker/audio/proj/weight", start["thinker.audio_tower.proj.weight"])
    same("thinker/vision/merger/fc1/weight", start["thinker.visual.merger.mlp.0.weight"])
    up = np.stack([qwen[f"model.layers.{i}.mlp.up_proj.weight"].load() for i in range(3)])
    np.testing.assert_array_equal(np.asarray(params["thinker/decoder/layers/up/weight"]), up)
    assert ("thinker/decoder/layers/up/lora/b" in state.params) == bool(lora)


def test_another_models_size_is_told_before_any_weight_is_read(run, tmp_path):
    language(hidden_size=96, num_attention_heads=6).save_pretrained(tmp_path / "small")
    with pytest.raises(OmniError, match=r"small/config.json: hidden_size is 96 and .* text_config has 120"):
        setup.prepare(changed(run, language=str(tmp_path / "small")))
