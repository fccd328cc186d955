"""What a run has learnt, in a directory that both libraries load; everything else as it was."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import Qwen2_5OmniForConditionalGeneration

import omni_jax
from omni_jax import OmniError
from omni_jax.training import setup as setups
from omni_jax.training.checkpoints import Checkpoints, claim
from omni_jax.training.config import DataConfig, LoraConfig, TrainConfig
from omni_jax.training.step import TrainState
from omni_jax.training.tuned import tuned
from omni_jax.weights import beside, find_speakers, match, read_directory, read_tensors
from omni_jax.weights.names import rows
from tests.training.speech_runs import speech_run
from tests.weights import checkpoints
from tests.weights.checkpoints import is_one_sentence, omni_config
from tests.weights.test_foreign import audio
from tools.convert import main as convert
from tools.export import main as export

RNG = np.random.default_rng(0)
CONFIG, LORA = omni_config(), LoraConfig(3, 7.0)
CONVERSATION = [{"role": "user", "content": "Tell me of the sea."}]
D, F, L = 120, 152, 3  # of the tiny 7B
LAYER, NAME = "thinker/decoder/layers", "thinker.model.layers.{}.{}.weight"


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) / 8


def write_run(workdir, model, learnt, lora=None, steps=(4,), **changes):
    claim(workdir, TrainConfig(model=str(model), data=DataConfig(train=()), lora=lora, **changes))
    written = Checkpoints(workdir)
    for step in steps:
        params = {path: jnp.asarray(leaf) + (steps[-1] - step) for path, leaf in learnt.items()}
        written.save(TrainState(jnp.int32(step), params, (), {}, {}), {})
    written.wait()
    written.close()
    return workdir


def differing(left, right) -> set[str]:
    left, right = read_directory(left), read_directory(right)
    assert left.keys() == right.keys()
    assert all((left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape) for name in left)
    return {name for name in left if left[name].load().tobytes() != right[name].load().tobytes()}


def test_a_tuned_model_speaks_on(tmp_path, talking_7b):
    learnt = {f"{LAYER}/1/up/weight": drawn(F, D), "thinker/decoder/norm/scale": 1 + drawn(D),
              f"{LAYER}/2/down/lora/a": drawn(3, F), f"{LAYER}/2/down/lora/b": drawn(D, 3)}
    run = write_run(tmp_path / "run", talking_7b, learnt, LORA)
    told, out = export([str(run), str(tmp_path / "out")]), tmp_path / "out"
    assert told["step"] == 4 and told["learnt"] == 4 and told["speakers"] == list(find_speakers(talking_7b))

    down, tensors = NAME.format(2, "mlp.down_proj"), read_directory(out)
    assert differing(out, talking_7b) == {NAME.format(1, "mlp.up_proj"), "thinker.model.norm.weight", down}
    np.testing.assert_array_equal(tensors["thinker.model.norm.weight"].load(), learnt["thinker/decoder/norm/scale"])
    added = 7 / 3 * learnt[f"{LAYER}/2/down/lora/b"] @ learnt[f"{LAYER}/2/down/lora/a"]
    np.testing.assert_allclose(tensors[down].load(), read_directory(talking_7b)[down].load() + added, atol=1e-6)
    same = {path.name for path in talking_7b.iterdir() if not path.name.startswith(("model", "config.json"))}
    assert "spk_dict.pt" in same and "generation_config.json" in same
    assert same == {path.name for path in out.iterdir() if not path.name.startswith(("model", "config.json"))}
    assert all((out / name).read_bytes() == (talking_7b / name).read_bytes() for name in same)
    assert json.loads((out / "config.json").read_text()) == json.loads((talking_7b / "config.json").read_text())


def test_both_libraries_load_it(tmp_path, talking_7b, talking):
    run = write_run(tmp_path / "run", talking_7b, {f"{LAYER}/gate/weight": drawn(L, F, D)})
    export([str(run), str(tmp_path / "out"), "--max-shard-size", "300KB"])
    ours = omni_jax.load(tmp_path / "out", mesh="")
    theirs = Qwen2_5OmniForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokens = torch.tensor(np.asarray(ours.prompt(CONVERSATION).token_ids))[None].long()
    with torch.no_grad():
        logits = theirs.thinker(input_ids=tokens).logits[0].numpy()
    found = ours.thinker_logits(CONVERSATION)
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())
    assert np.abs(found - talking.thinker_logits(CONVERSATION)).max() > 0.1
    assert theirs.speaker_map.keys() == set(ours.speakers)


def test_networks_beside_come_along(tmp_path, talking_7b):
    """What was learnt beside the checkpoint, then as it is; what only judges stays behind. Old voices are told of."""
    def exported(objective, model, name):
        run = speech_run(objective, model, tmp_path / "none.jsonl")
        learnt = {path: drawn(*leaf.shape) for path, leaf in setups.prepare(run).abstract.params.items()}
        write_run(tmp_path / objective, model, learnt, objective=objective, train=run.train, speech=run.speech)
        return learnt, export([str(tmp_path / objective), str(tmp_path / name)])

    learnt, told = exported("codec", talking_7b, "coded")
    assert told["beside"] == ["codec_encoder", "speaker_encoder"]
    assert len(told["notes"]) == 1 and "Chelsie, Ethan are as they were: make them anew" in told["notes"][0]
    abstract = setups.prepare(speech_run("codec", talking_7b, tmp_path / "none.jsonl")).abstract.params
    for name in told["beside"]:
        own = {path: leaf for path, leaf in abstract.items() if path.startswith(f"{name}/")}
        found = beside.load(tmp_path / "coded", name, own)
        assert found.keys() == own.keys() and all(np.array_equal(leaf, learnt[path]) for path, leaf in found.items())
    again, told = exported("vocoder", tmp_path / "coded", "spoken")
    assert any(path.startswith("discriminators/") for path in again) and told["notes"] == []
    assert told["beside"] == ["codec_encoder", "speaker_encoder"]
    files = beside.files(tmp_path / "coded")
    assert len(files) == 3
    assert all((tmp_path / "spoken" / path.name).read_bytes() == path.read_bytes() for path in files)
    assert not list((tmp_path / "spoken").glob("*discriminator*"))
    assert all(name.startswith("token2wav.code2wav_bigvgan") for name in differing(
        tmp_path / "coded", tmp_path / "spoken"))


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """A Thinker's checkpoint in bfloat16."""
    return checkpoints.write_checkpoint(tmp_path_factory.mktemp("start") / "omni", CONFIG, "bfloat16")


@pytest.fixture(scope="module")
def halves(silent):
    return match(read_tensors(silent, CONFIG), CONFIG, silent)


def test_from_a_store_and_at_a_step(tmp_path, silent):
    convert([str(silent), str(tmp_path / "store")])
    run = write_run(tmp_path / "run", tmp_path / "store", {"thinker/decoder/norm/scale": drawn(D)}, steps=(2, 4))
    assert export([str(run), str(tmp_path / "last")])["step"] == 4
    assert export([str(run), str(tmp_path / "first"), "--step", "2"])["step"] == 2
    assert differing(tmp_path / "last", tmp_path / "first") == {"thinker.model.norm.weight"}
    assert differing(tmp_path / "last", silent) == {"thinker.model.norm.weight"}
    assert torch.load(tmp_path / "last" / "spk_dict.pt", weights_only=True).keys() == find_speakers(silent).keys()


def test_other_models_parts_come_along(tmp_path, silent):
    audio().save_pretrained(tmp_path / "whisper")
    run = write_run(tmp_path / "run", silent, {"thinker/audio/proj/bias": drawn(D)}, audio=str(tmp_path / "whisper"))
    export([str(run), str(tmp_path / "out")])
    own = {name for name in read_directory(silent) if name.startswith("thinker.audio_tower.")}
    # Norms and biases of a fresh Whisper are ones and zeros, and the checkpoint's are not; so all names differ.
    assert differing(tmp_path / "out", silent) == own - {
        "thinker.audio_tower.proj.weight", "thinker.audio_tower.audio_bos_eos_token.weight"}


@pytest.mark.parametrize("stacked", [True, False])
def test_every_weight_goes_back_to_its_place(halves, stacked):
    """Learnt leaves that are the checkpoint's own give its own bytes."""
    learnt = {}
    for row, tensors in halves:
        layers = [np.asarray(tensor.load()).astype(np.float32).reshape(row.layer_shape) for tensor in tensors]
        if row.layers is None or stacked:
            learnt[row.path] = layers[0] if row.layers is None else np.stack(layers)
        else:
            learnt |= {row.path.replace("/layers/", f"/layers/{i}/"): layer for i, layer in enumerate(layers)}
    assert learnt.keys() == set(learnt) and len(halves) == len(rows(CONFIG))
    for (_, before), (_, after) in zip(halves, tuned(halves, learnt), strict=True):
        for old, new in zip(before, after, strict=True):
            assert new is not old and new.load().dtype == new.dtype == old.dtype
            assert new.load().tobytes() == old.load().tobytes()


def test_adapters_are_added_in_float32(halves):
    a, b = drawn(L, 3, D), drawn(L, 6, 20, 3)
    merged = tuned(halves, {f"{LAYER}/q/lora/a": a, f"{LAYER}/q/lora/b": b}, LORA)
    start, found = (next(tensors for row, tensors in whole if row.path == f"{LAYER}/q/weight")
                    for whole in (halves, merged))
    for layer in range(L):
        exact = start[layer].load().astype(np.float64) + 7 / 3 * (b[layer].reshape(D, 3).astype(np.float64) @ a[layer])
        # Rounded once to bfloat16, after sums in float32.
        assert (np.abs(found[layer].load().astype(np.float64) - exact) <= np.abs(exact) * 2.0**-8 + 1e-6).all()


@pytest.mark.parametrize("learnt, lora, message", [
    ({"thinker/decoder/layer/1/q/weight": (6, 20, D)}, None, "layer/1/q/weight of the run is not of its starting"),
    ({f"{LAYER}/7/q/weight": (6, 20, D)}, None, "layers/7/q/weight of the run is not of its starting"),
    ({f"{LAYER}/q/lora/a": (L, 3, D), f"{LAYER}/q/lora/b": (L, 6, 20, 3)}, None, "q/lora/a of the run is not of its"),
    ({f"{LAYER}/q/weight": (L + 1, 6, 20, D)}, None, "has 4 layers, and 3"),
    ({f"{LAYER}/1/q/weight": (20, 6, D)}, None, r"has the shapes \[\[20, 6, 120\]\], and \[6, 20, 120\]"),
    ({f"{LAYER}/q/lora/a": (L, 3, D)}, LORA, "q/weight of the run has the shapes"),
    ({f"{LAYER}/q/lora/a": (L, 3, D), f"{LAYER}/q/lora/b": (L, 20, 6, 3)}, LORA, "q/weight of the run has the shapes")])
def test_what_is_not_of_the_model(halves, learnt, lora, message):
    with pytest.raises(OmniError, match=message) as raised:
        tuned(halves, {path: np.zeros(shape, np.float32) for path, shape in learnt.items()}, lora)
    assert is_one_sentence(str(raised.value))


def test_a_run_that_cannot_be_exported(tmp_path, talking_7b):
    with pytest.raises(OmniError, match="give the directory of a training run"):
        export([str(tmp_path), str(tmp_path / "out")])
    run = write_run(tmp_path / "run", tmp_path / "gone", {"thinker/decoder/norm/scale": drawn(D)})
    with pytest.raises(OmniError, match=r"gone: is not a directory, and .*run/config.json names it"):
        export([str(run), str(tmp_path / "out")])
    data = dataclasses.asdict(TrainConfig(model=str(talking_7b), data=DataConfig(train=())))
    (run / "config.json").write_text(json.dumps(data))
    with pytest.raises(OmniError, match="has no checkpoint of step 9; there are 4"):
        export([str(run), str(tmp_path / "out"), "--step", "9"])
    assert not (tmp_path / "out").exists()
