import ast
import dataclasses
import json
from pathlib import Path

import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax import config as configs
from omni_jax.config import OmniConfig
from tests import tiny

RELEASES = sorted(Path("configs").glob("qwen2.5-omni-*.json"))


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_released_configs_survive_the_round_trip(path):
    data = json.loads(path.read_text())
    assert OmniConfig.load(path).to_json() == data
    assert OmniConfig.from_json(OmniConfig.load(path).to_json()) == OmniConfig.load(path)


def test_released_sizes():
    seven, three = (OmniConfig.load(f"configs/qwen2.5-omni-{size}.json").thinker_config for size in ("7b", "3b"))
    assert (seven.text_config.hidden_size, seven.text_config.num_attention_heads, seven.text_config.head_dim,
            seven.text_config.mrope_section) == (3584, 28, 128, (16, 24, 24))
    assert (three.text_config.hidden_size, three.text_config.num_key_value_heads, three.text_config.head_dim) == (
        2048, 2, 128)
    assert seven.vision_config.cell_pixels == 28 and seven.vision_config.window_cells == 4


@pytest.mark.parametrize("kind", ["7b", "3b"])
def test_transformers_reads_what_is_written_and_the_other_way_round(kind):
    transformers = pytest.importorskip("transformers")
    ours = OmniConfig.from_json(tiny.config(kind))
    theirs = transformers.Qwen2_5OmniConfig(**ours.to_json())
    assert OmniConfig.from_json(theirs.to_dict()) == ours
    thinker = theirs.thinker_config
    assert thinker.text_config.rope_parameters["mrope_section"] == list(ours.thinker_config.text_config.mrope_section)
    assert OmniConfig.from_json(thinker.to_dict()) == ours


@pytest.mark.parametrize("kind", ["7b", "3b"])
def test_speaking_halves_are_read_and_written(kind):
    transformers = pytest.importorskip("transformers")
    data = tiny.config(kind, speech=True)
    ours = OmniConfig.from_json(data)
    assert ours.to_json() == data
    theirs = transformers.Qwen2_5OmniConfig(**ours.to_json())
    again = OmniConfig.from_json(theirs.to_dict())
    assert again == ours and again.talker_config.head_dim == data["talker_config"]["head_dim"]
    assert 0 in OmniConfig.load("configs/qwen2.5-omni-3b.json").talker_config.mrope_section


@pytest.mark.parametrize("change", [{"enable_audio_output": False}, {"talker_config": None, "token2wav_config": None}])
def test_without_speech_there_is_none(change):
    config = OmniConfig.from_json({**tiny.config("7b", speech=True), **change})
    assert config.talker_config is None and config.token2wav_config is None
    silent = OmniConfig.from_json(tiny.config("7b", speech=True)).without_speech()
    assert OmniConfig.from_json(silent.to_json()) == config and silent.to_json()["enable_audio_output"] is False


@pytest.mark.parametrize("change, message", [
    ({"head_dim": None}, "field head_dim is missing"), ({"head_dim": 18}, "half of head_dim 18"),
    ({"num_key_value_heads": 2}, "must be a multiple"),
    ({"vocab_size": 320}, "tts_codec_mask_token_id 320 lies outside"),
    ({"embedding_size": 96}, "embedding_size 96 must equal"),
    ({"tts_text_pad_token_id": 487}, "outside the vocabulary"),
    ({"rope_scaling": {"mrope_section": [2, -1, 7]}}, "mrope_section: -1 must be 0 or more"),
    ({"tts_codec_pad_token_id": None}, "field tts_codec_pad_token_id is missing"),
], ids=lambda value: str(value)[:30])
def test_contradictions_of_the_talker(change, message):
    data = tiny.config("7b", speech=True)
    data["talker_config"] |= change
    with pytest.raises(OmniError, match=f"^talker_config.*{message}"):
        OmniConfig.from_json(data)


def test_spellings():
    data = tiny.config("7b")
    thinker = data["thinker_config"]
    thinker["image_token_id"] = thinker.pop("image_token_index")
    thinker["vision_config"]["num_hidden_layers"] = thinker["vision_config"].pop("depth")
    text = thinker["text_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    assert OmniConfig.from_json(data) == OmniConfig.from_json(tiny.config("7b"))
    assert OmniConfig.from_json(data).to_json() == data


def test_the_thinker_decides_whether_the_head_is_tied():
    """transformers writes its class's default, true, into text_config, and goes by thinker_config."""
    data = tiny.config("7b")
    data["thinker_config"]["text_config"]["tie_word_embeddings"] = True
    assert not OmniConfig.from_json(data).thinker_config.tie_word_embeddings
    data["thinker_config"]["tie_word_embeddings"] = True
    assert OmniConfig.from_json(data).thinker_config.tie_word_embeddings


@pytest.mark.parametrize("section, field", [("text_config", "hidden_size"), ("audio_config", "d_model"),
                                            ("vision_config", "depth"), (None, "audio_token_index")])
def test_a_missing_size_is_named(section, field, tmp_path):
    data = tiny.config("7b")
    part = data["thinker_config"][section] if section else data["thinker_config"]
    del part[field]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    with pytest.raises(OmniError, match=rf"config\.json: thinker_config.*field {field} is missing"):
        OmniConfig.load(path)


@pytest.mark.parametrize("change, message", [
    ({"hidden_size": "wide"}, "text_config.hidden_size: 'wide' is not a valid int"),
    ({"num_key_value_heads": 4}, "must be a multiple"),
    ({"rope_scaling": {"mrope_section": [1, 2, 3]}}, "half of head_dim"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu'"),
    ({"use_sliding_window": True}, "use_sliding_window is True"),
    ({"vocab_size": 262}, "outside the vocabulary"),
    ({"hidden_size": float("inf")}, "text_config.hidden_size: inf is not a valid int"),
    ({"vocab_size": float("nan")}, "text_config.vocab_size: nan is not a valid int"),
    ({"intermediate_size": 2**40}, "text_config.intermediate_size: 1099511627776 is not a valid int"),
    ({"num_attention_heads": 0}, "text_config.num_attention_heads: 0 must be above 0"),
    ({"num_key_value_heads": -2}, "text_config.num_key_value_heads: -2 must be above 0"),
    ({"num_hidden_layers": True}, "text_config.num_hidden_layers: True is not a valid int"),
    ({"rms_norm_eps": float("nan")}, "text_config.rms_norm_eps: nan is not a valid float"),
    ({"rope_theta": 0}, "text_config.rope_theta: 0.0 must be above 0"),
    ({"rope_scaling": {"mrope_section": [10, -5, 5]}}, "text_config.mrope_section: -5 must be above 0"),
], ids=lambda value: str(value)[:30])
def test_contradictions_are_one_sentence(change, message):
    data = tiny.config("7b")
    data["thinker_config"]["text_config"].update(change)
    with pytest.raises(OmniError, match=message):
        OmniConfig.from_json(data)


@pytest.mark.parametrize("section, change, message", [
    ("audio_config", {"encoder_attention_heads": 0}, "audio_config.encoder_attention_heads: 0 must be above 0"),
    ("vision_config", {"patch_size": 0}, "vision_config.patch_size: 0 must be above 0"),
    ("vision_config", {"fullatt_block_indexes": [-1]}, "vision_config.fullatt_block_indexes: -1 must be 0 or more"),
    (None, {"position_id_per_seconds": 0}, "thinker_config.position_id_per_seconds: 0 must be above 0"),
    (None, {"image_token_index": -1}, "thinker_config.image_token_index: -1 must be 0 or more"),
], ids=lambda value: str(value)[:30])
def test_numbers_that_nothing_can_have(section, change, message):
    data = tiny.config("7b")
    part = data["thinker_config"][section] if section else data["thinker_config"]
    part.update(change)
    with pytest.raises(OmniError, match=message):
        OmniConfig.from_json(data)


def test_numbers_that_json_knows_and_we_do_not(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny.config("7b")).replace('"depth": 4', '"depth": Infinity'))
    with pytest.raises(OmniError, match=r"config\.json: thinker_config\.vision_config\.depth: inf is not a valid int"):
        OmniConfig.load(tmp_path)


def test_the_other_spelling_of_the_width_gives_the_heads_width():
    data = tiny.config("7b")
    text = data["thinker_config"]["text_config"]
    text["dim"], text["hidden_size"] = text["hidden_size"], None
    assert OmniConfig.from_json(data) == OmniConfig.from_json(tiny.config("7b"))


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"thinker_config": 3}'])
def test_files_that_are_no_config(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(OmniError, match=r"config\.json"):
        OmniConfig.load(tmp_path)


def test_every_field_is_read_by_something():
    """A setting that nothing reads is a promise that nothing keeps."""
    package = Path(omni_jax.__file__).parent
    trees = {str(path.relative_to(package)): ast.parse(path.read_text()) for path in package.rglob("*.py")}
    # In config.py itself only properties count: checks and the reader see every field.
    trees["config.py"] = ast.Module([node for node in ast.walk(trees["config.py"]) if isinstance(node, ast.FunctionDef)
                                     and "property" in map(ast.unparse, node.decorator_list)], [])
    read = {node.attr for tree in trees.values() for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    kinds = (configs.TextConfig, configs.AudioConfig, configs.VisionConfig, configs.ThinkerConfig,
             configs.TalkerConfig, configs.DiTConfig, configs.BigVGANConfig)
    unread = [f"{kind.__name__}.{field.name}" for kind in kinds for field in dataclasses.fields(kind)
              if field.name not in read]
    assert not unread
