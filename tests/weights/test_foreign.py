"""Parts from other models: our towers and decoder then answer as those models do."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from omni_jax import OmniError, sharding
from omni_jax.data.windows import window_bins
from omni_jax.inference.networks import abstract_networks
from omni_jax.models.vision_encoder import normalize_pixels
from omni_jax.weights import load_params, match, read_tensors
from omni_jax.weights.foreign import find_foreign, overlay, replaced
from omni_jax.weights.names import check_tree, leaves, nest
from tests.weights import checkpoints
from tests.weights.checkpoints import is_one_sentence, omni_config, rewrite

CONFIG = omni_config()
TEXT, AUDIO, VISION = (getattr(CONFIG.thinker_config, f"{part}_config") for part in ("text", "audio", "vision"))
VOCABULARY = 471  # fewer rows than the Omni's 487


def language(**changes) -> Qwen2ForCausalLM:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "rms_norm_eps", "rope_theta")
    return Qwen2ForCausalLM(Qwen2Config(**{"vocab_size": VOCABULARY, "tie_word_embeddings": False,
                                           **{name: getattr(TEXT, name) for name in names}, **changes}))


def vision(**changes) -> Qwen2_5_VLForConditionalGeneration:
    names = ("depth", "hidden_size", "num_heads", "intermediate_size", "patch_size", "spatial_merge_size",
             "temporal_patch_size", "window_size", "fullatt_block_indexes", "out_hidden_size")
    text = {"vocab_size": 160, "hidden_size": VISION.out_hidden_size, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [5, 5, 5]}}
    own = {**{name: getattr(VISION, name) for name in names}, **changes}
    ids = dict.fromkeys(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), 3)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=own, text_config=text, **ids))


def audio(**changes) -> WhisperForConditionalGeneration:
    names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins")
    return WhisperForConditionalGeneration(WhisperConfig(**{
        "vocab_size": 90, "decoder_layers": 1, "decoder_attention_heads": 6, "decoder_ffn_dim": 16,
        "max_source_positions": AUDIO.n_window, "max_target_positions": 8, "pad_token_id": 0, "bos_token_id": 0,
        "eos_token_id": 0, "decoder_start_token_id": 0, **{name: getattr(AUDIO, name) for name in names}, **changes}))


MADE = {"language": language, "vision": vision, "audio": audio}


@functools.cache
def model(part: str):
    """With weights that no symmetry hides: the classes' own first norms and biases are ones and zeros."""
    torch.manual_seed(len(part))
    made = MADE[part]().eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "embed_positions" not in name and weight.ndim == 1:
                weight += 0.1 * torch.randn_like(weight)
            elif "embed_positions" not in name:
                weight.mul_(3)
    return made


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    for part in MADE:
        model(part).save_pretrained(root / part)
    return {part: root / part for part in MADE}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return checkpoints.write_checkpoint(tmp_path_factory.mktemp("start") / "omni", CONFIG)


def matched(start, config=CONFIG):
    return match(read_tensors(start, config), config, start)


def loaded(start, sources, spec="", scanned=True):
    mesh = sharding.make_mesh(spec)
    graphdef, abstract = abstract_networks(CONFIG, mesh, "float32", scanned)["thinker"]
    params = dict(leaves(load_params(start, CONFIG, {"thinker": abstract})))
    before = {path: np.asarray(leaf) for path, leaf in params.items()}
    foreign = find_foreign(CONFIG, sources, matched(start))
    overlay(params, foreign)
    ordered = nest({path: params[path] for path in before})
    check_tree(ordered, CONFIG)
    assert all(params[path].sharding == leaf.sharding for path, leaf in leaves({"thinker": abstract}))
    after = {path: np.asarray(leaf) for path, leaf in params.items()}
    return foreign, before, after, nnx.merge(graphdef, ordered["thinker"])


@pytest.fixture(scope="module")
def overlaid(start, directories):
    return loaded(start, directories)


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)


def test_the_decoder_answers_as_qwen_2_5(overlaid):
    thinker, T = overlaid[3], 13
    tokens = np.arange(2 * T).reshape(2, T) * 37 % VOCABULARY

    @jax.jit
    def logits(tokens):
        positions = jnp.broadcast_to(jnp.arange(T), (3, 2, T))
        cache = thinker.decoder.empty_cache(2, 16)
        return thinker.logits(thinker.decoder(thinker.embed(tokens), positions, jnp.ones((2, T), bool), cache)[0])

    close(logits(tokens)[..., :VOCABULARY], model("language")(torch.tensor(tokens)).logits)


def test_the_audio_tower_answers_as_whisper(overlaid):
    """Up to the pooling, which Whisper does not have, and the projection, which stays."""
    _, before, _, thinker = overlaid
    mel = np.random.default_rng(0).standard_normal((2, 2 * AUDIO.n_window, AUDIO.num_mel_bins)).astype(np.float32)
    encoder, kept = model("audio").model.encoder, []
    encoder.layer_norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        encoder(torch.tensor(mel).mT)
        theirs = torch.nn.functional.layer_norm((kept[0][:, 0::2] + kept[0][:, 1::2]) / 2, (AUDIO.d_model,),
                                                encoder.layer_norm.weight, encoder.layer_norm.bias)
    weight, bias = (np.asarray(before[f"thinker/audio/proj/{leaf}"]) for leaf in ("weight", "bias"))
    ours = jax.jit(thinker.audio)(mel, jnp.full(2, mel.shape[1]))
    close(ours, theirs @ torch.tensor(weight).T + torch.tensor(bias))


def test_the_vision_tower_answers_as_qwen_2_5_vl(overlaid):
    frames, rows, columns = 2, 6, 5  # cells; windows of 4 x 4, so three of four are partial
    patches = np.random.default_rng(0).integers(0, 256, (frames, rows * columns, 4, 3 * 2 * 14 * 14)).astype(np.uint8)
    layout = window_bins(rows, columns, VISION.window_cells)
    bins, slots = np.nonzero(layout[..., 2] >= 0)
    cells = layout[bins, slots, 0] * columns + layout[bins, slots, 1]
    pixels = np.zeros((frames, *layout.shape[:2], *patches.shape[2:]), np.uint8)
    pixels[:, bins, slots] = patches[:, cells]
    found = np.asarray(jax.jit(overlaid[3].vision)(pixels, np.stack([layout] * frames)))
    ours = np.zeros((frames, rows * columns, VISION.out_hidden_size), np.float32)
    ours[:, cells] = found[:, bins, slots]
    flat = torch.tensor(np.asarray(normalize_pixels(patches))).reshape(-1, patches.shape[-1])
    theirs = model("vision").model.visual(flat, grid_thw=torch.tensor([[frames, 2 * rows, 2 * columns]]))
    close(ours.reshape(-1, VISION.out_hidden_size), theirs.pooler_output)


@pytest.mark.parametrize("part", MADE)
def test_only_the_part_is_replaced(overlaid, directories, part):
    foreign, before, params, _ = overlaid
    origins = {path for path, directory in foreign.origins.items() if directory == directories[part]}
    starts = {"language": ("thinker/embed", "thinker/decoder", "thinker/lm_head"), "vision": "thinker/vision",
              "audio": "thinker/audio"}[part]
    stays = {path for path in before if path.startswith(("thinker/audio/proj", "thinker/audio/bos_eos"))}
    assert origins == {path for path in before if path.startswith(starts)} - stays
    assert all((before[path] == params[path]).all() == (path in stays) for path in origins | stays)


def test_rows_beyond_the_smaller_vocabulary_stay(overlaid):
    foreign, before, params, _ = overlaid
    for path, theirs in (("thinker/embed/weight", model("language").model.embed_tokens),
                         ("thinker/lm_head/weight", model("language").lm_head)):
        np.testing.assert_array_equal(params[path][:VOCABULARY], theirs.weight.detach().numpy())
        np.testing.assert_array_equal(params[path][VOCABULARY:], before[path][VOCABULARY:])
    assert len(foreign.notes) == 1 and "471 rows and the checkpoint's 487; the checkpoint's rows" in foreign.notes[0]


@pytest.mark.parametrize("spec, scanned", [("data=2,fsdp=2,model=2", True), ("", False)])
def test_any_mesh_and_both_forms_of_layers(start, directories, overlaid, spec, scanned):
    params, stacked = loaded(start, directories, spec, scanned)[2], overlaid[2]
    for path, leaf in stacked.items():
        for i, layer in enumerate(leaf) if "/layers/" in path and not scanned else [(None, leaf)]:
            own = path if i is None else path.replace("/layers/", f"/layers/{i}/")
            np.testing.assert_array_equal(params[own], layer)


def test_replaced_tensors_have_the_checkpoints_type(tmp_path, directories):
    omni = checkpoints.write_checkpoint(tmp_path / "omni", CONFIG, "bfloat16")
    before, foreign = matched(omni), find_foreign(CONFIG, directories, matched(omni))
    new = {row.path: tensors for row, tensors in replaced(before, foreign)}
    assert {str(tensor.load().dtype) for tensors in new.values() for tensor in tensors} == {"bfloat16"}
    theirs = model("vision").model.visual.blocks[2].attn.qkv.weight.to(torch.bfloat16).float().detach().numpy()
    np.testing.assert_array_equal(new["thinker/vision/layers/k/weight"][2].load().astype(np.float32),
                                  theirs[VISION.hidden_size:2 * VISION.hidden_size])


def test_a_tied_language_model(tmp_path, start):
    language(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    foreign = find_foreign(CONFIG, {"language": tmp_path / "tied"}, matched(start))
    rows = {row.path: tensors for row, tensors in foreign.rows}
    for path in ("thinker/embed/weight", "thinker/lm_head/weight"):
        theirs = checkpoints.read_directory(tmp_path / "tied")["model.embed_tokens.weight"].load()
        np.testing.assert_array_equal(rows[path][0].load()[:VOCABULARY], theirs)


def test_a_head_of_its_own_has_no_place_in_a_tied_checkpoint(tmp_path, directories):
    config = omni_config(tie_word_embeddings=True)
    omni = checkpoints.write_checkpoint(tmp_path / "omni", config)
    with pytest.raises(OmniError, match="has a head of its own"):
        find_foreign(config, {"language": directories["language"]}, matched(omni, config))


def test_a_larger_vocabulary_is_cut(tmp_path, start):
    language(vocab_size=500).save_pretrained(tmp_path / "large")
    foreign = find_foreign(CONFIG, {"language": tmp_path / "large"}, matched(start))
    assert "those beyond are left out" in foreign.notes[0]
    tensor = next(tensors[0] for row, tensors in foreign.rows if row.path == "thinker/embed/weight")
    np.testing.assert_array_equal(
        tensor.load(), checkpoints.read_directory(tmp_path / "large")["model.embed_tokens.weight"].load()[:487])


def test_a_merger_to_another_width_stays(tmp_path, start):
    vision(out_hidden_size=VISION.out_hidden_size - 40).save_pretrained(tmp_path / "narrow")
    foreign = find_foreign(CONFIG, {"vision": tmp_path / "narrow"}, matched(start))
    assert foreign.notes[0].endswith("merger leads to vectors of 80 and not of 120, so the checkpoint's merger stays")
    assert foreign.origins and not [path for path in foreign.origins if "merger" in path]


def test_older_names(tmp_path, start, directories):
    """Qwen2.5-VL's of before transformers 5, and those of an encoder saved without its head."""
    same = {}
    for part, old, new in (("vision", "visual.", "model.visual."), ("audio", "encoder.", "model.encoder.")):
        copy = checkpoints.copy(directories[part], tmp_path / part)

        def rename(arrays, old=old, new=new):
            spelling = any(name.startswith(new) for name in arrays)
            start, end = (new, old) if spelling else (old, new)
            for name in [name for name in arrays if name.startswith(start)]:
                arrays[end + name.removeprefix(start)] = arrays.pop(name)

        rewrite(copy, rename)
        same[part] = copy
    before, after = (find_foreign(CONFIG, sources, matched(start)) for sources in
                     ({part: directories[part] for part in same}, same))
    for (row, ours), (other, theirs) in zip(before.rows, after.rows, strict=True):
        assert row.path == other.path
        assert all((a.load() == b.load()).all() for a, b in zip(ours, theirs, strict=True))


NAMES = {"language": "model.layers.1.mlp.up_proj.weight", "vision": "blocks.1.attn.qkv.weight",
         "audio": "encoder.layers.2.fc1.bias"}


def broken_tensor(part, what):
    def change(arrays):
        name = next(name for name in arrays if name.endswith(NAMES[part]))
        if what == "unknown":
            arrays[name.replace("layers.", "layers.9").replace("blocks.", "blocks.9")] = arrays[name]
        elif what == "misshaped":
            arrays[name] = arrays[name][:-1]
        else:
            del arrays[name]
    return change


@pytest.mark.parametrize("what", ["missing", "unknown", "misshaped"])
@pytest.mark.parametrize("part", MADE)
def test_tensors_that_do_not_fit(tmp_path, start, directories, part, what):
    broken = rewrite(checkpoints.copy(directories[part], tmp_path / "broken"), broken_tensor(part, what))
    with pytest.raises(OmniError, match=f"broken: tensor .*{NAMES[part].split('.')[-2]}.* is {what}") as raised:
        find_foreign(CONFIG, {part: broken}, matched(start))
    assert is_one_sentence(str(raised.value))


@pytest.mark.parametrize("part, field, value", [
    ("language", "hidden_size", 128), ("language", "rope_theta", 10000.0), ("vision", "depth", 5),
    ("vision", "fullatt_block_indexes", [0]), ("audio", "encoder_layers", 6), ("audio", "model_type", "bert")])
def test_another_size_is_told_by_its_config(tmp_path, start, directories, part, field, value):
    broken = checkpoints.copy(directories[part], tmp_path / "other")
    path = broken / "config.json"
    data = json.loads(path.read_text())
    inner = data["vision_config"] if part == "vision" else data
    if field == "rope_theta":
        inner.pop("rope_parameters", None)
    inner[field] = value
    path.write_text(json.dumps(data))
    shown = value if not isinstance(value, list) else tuple(value)
    with pytest.raises(OmniError) as raised:
        find_foreign(CONFIG, {part: broken}, matched(start))
    assert f"other/config.json: {field} is {shown!r} and" in str(raised.value)
    assert is_one_sentence(str(raised.value))
