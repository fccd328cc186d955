"""The name table is a bijection onto the parameter tree, and onto the reference's names."""

import jax
import pytest

from omni_jax.config import OmniConfig
from omni_jax.weights.names import canonical, check_tree, in_file_order, leaves, nest, rows
from tests.tiny import CONFIGS
from tests.weights.checkpoints import abstract, nested_name, omni_config

RELEASES = {  # sections' sizes as published
    "7b": {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
           "num_attention_heads": 28, "num_key_value_heads": 4},
    "3b": {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
           "num_attention_heads": 16, "num_key_value_heads": 2},
}


def release(kind):
    config = omni_config(kind).to_json()
    thinker = config["thinker_config"]
    rope = {"mrope_section": [16, 24, 24], "rope_type": "default", "rope_theta": 1e6}
    thinker["text_config"] |= RELEASES[kind] | {"rope_scaling": rope}
    thinker["text_config"].pop("rope_parameters", None)
    width = RELEASES[kind]["hidden_size"]
    thinker["audio_config"] |= {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20,
                                "encoder_ffn_dim": 5120, "max_source_positions": 1500, "output_dim": width}
    thinker["vision_config"] |= {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420,
                                 "out_hidden_size": width}
    return OmniConfig.from_json(config)


CASES = {**{f"tiny-{kind}": omni_config(kind) for kind in CONFIGS}, **{kind: release(kind) for kind in RELEASES},
         **{f"talking-{kind}": omni_config(kind, speech=True) for kind in CONFIGS},
         "tied": omni_config(tie_word_embeddings=True), "alone": omni_config(whole=False)}


@pytest.mark.parametrize("case", CASES)
def test_bijection_onto_the_parameter_tree(case):
    config = CASES[case]
    table = rows(config)
    assert len({row.path for row in table}) == len({row.name for row in table}) == len(table)
    found = {path: leaf.shape for path, leaf in leaves(abstract(config))}
    assert found == {row.path: row.shape for row in table}


@pytest.mark.parametrize(("case", "count"), [("7b", 8_931_813_888), ("3b", 4_703_464_448)])
def test_names_and_shapes_of_the_reference(case, count):
    import torch
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    config = CASES[case]
    with torch.device("meta"):
        reference = Qwen2_5OmniThinkerForConditionalGeneration(
            Qwen2_5OmniThinkerConfig(**config.to_json()["thinker_config"]))
    theirs = {canonical(name): tuple(value.shape) for name, value in reference.state_dict().items()}
    ours = {name.removeprefix("thinker."): row.file_shape for row in rows(config) for name in row.names()}
    assert ours == theirs
    assert sum(value.numel() for value in reference.state_dict().values()) == count


@pytest.mark.parametrize(("size", "count"), [("7b", 10_732_225_408), ("3b", 5_537_120_640)])
def test_names_and_shapes_of_whole_releases(size, count):
    import torch
    from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

    config = OmniConfig.load(f"configs/qwen2.5-omni-{size}.json")
    with torch.device("meta"):
        reference = Qwen2_5OmniForConditionalGeneration(Qwen2_5OmniConfig.from_dict(config.to_json()))
    theirs = {canonical(name): tuple(value.shape) for name, value in reference.state_dict().items()}
    assert {name: row.file_shape for row in rows(config) for name in row.names()} == theirs
    assert sum(value.numel() for value in reference.state_dict().values()) == count


def test_both_schemes_have_one_canonical_name(config):
    for row in rows(config):
        assert canonical(nested_name(row.name)) == canonical(row.name) == row.name


def test_file_order_is_layer_by_layer(config):
    order = [row.name_of(layer) for row, layer in in_file_order(rows(config))]
    assert sorted(order) == sorted(name for row in rows(config) for name in row.names())
    layers = [name.split(".")[3] for name in order if name.startswith("thinker.model.layers.")]
    assert layers == sorted(layers)


def test_wrong_trees_are_refused(config):
    tree = abstract(config)
    check_tree(tree, config)
    renamed = dict(leaves(tree))
    renamed["thinker/decoder/layers/z/weight"] = renamed.pop("thinker/decoder/layers/up/weight")
    with pytest.raises(AssertionError, match="thinker/decoder/layers/z/weight"):
        check_tree(nest(renamed), config)
    misshaped = dict(leaves(tree))
    leaf = misshaped["thinker/decoder/layers/q/weight"]
    misshaped["thinker/decoder/layers/q/weight"] = jax.ShapeDtypeStruct(leaf.shape[::-1], leaf.dtype)
    with pytest.raises(AssertionError, match="thinker/decoder/layers/q/weight"):
        check_tree(nest(misshaped), config)
