"""What users get wrong when they load and ask: one sentence each, before any media are read."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.inference import loading as facade
from omni_jax.inference.omni import Omni

ASK = [{"role": "user", "content": "Hi."}]
NOWHERE = [{"role": "user", "content": [{"type": "image", "image": "nowhere.png"}]}]
SEED = "seed is .*; it must be a whole number from 0 to 4294967295$"
TOKENS = "max_new_tokens is .*; it must be a whole number 1 or more$"


@pytest.mark.parametrize("conversation", [{}, ASK[0], "Hi.", "", b"Hi.", 5, 0, None, iter(ASK), {1}, np.zeros((2, 2))],
                         ids=lambda value: type(value).__name__)
def test_what_is_no_conversation(omni, conversation):
    for call in (omni.generate, omni.stream, omni.thinker_logits, omni.position_ids):
        with pytest.raises(OmniError, match=r"^conversation: must be a list of messages, not a "):
            call(conversation)


@pytest.mark.parametrize("conversations", [[ASK, "Hi."], [ASK, 3], [[]], [ASK, []], []], ids=str)
def test_what_is_no_batch(omni, conversations):
    with pytest.raises(OmniError, match=r"^conversation: "):
        omni.generate(conversations)


@pytest.mark.parametrize("options, message", [
    *(({"max_new_tokens": value}, TOKENS) for value in ("3", None, 2.5, 0, -1, True, [3])),
    *(({"seed": value}, SEED) for value in (None, 2**70, 2**32, -1, 1.0, "1", True, [[1]], [1.5], {1: 1})),
    *(({"seed": value}, SEED) for value in (np.zeros((1, 1), int), np.zeros(1), np.array([-1]), [[1], [2, 3]])),
    ({"seed": []}, "seed has 0 entries for 1 conversations"),
    ({"temperature": "1"}, "temperature is '1'; it must be a number 0"),
    ({"top_k": float("inf")}, "top_k is inf; it must be a whole number 0 or more"),
    ({"top_p": "most"}, "top_p is 'most'; it must be a number above 0 and at most 1"),
    ({"repetition_penalty": [1]}, "repetition_penalty is .1.; it must be a number above 0"),
], ids=str)
def test_options_are_checked_before_media_are_read(omni, options, message):
    for call in (omni.generate, omni.stream):
        with pytest.raises(OmniError, match=message) as error:
            call(NOWHERE, **options)
        assert "\n" not in str(error.value)


def test_numpy_numbers_are_fine(omni):
    plain = omni.generate([ASK, ASK], max_new_tokens=3, temperature=1.0, top_k=9, seed=[3, 4])
    numpy = omni.generate((ASK, tuple(ASK)), max_new_tokens=np.int32(3), temperature=np.float32(1), top_k=np.int8(9),
                          seed=np.array([3, 4]))
    assert [reply.token_ids for reply in plain] == [reply.token_ids for reply in numpy]


def test_more_tokens_than_the_context_holds_are_as_many_as_it_holds(omni):
    assert omni.reply_limit(10**30) == omni.config.thinker_config.text_config.max_position_embeddings


@pytest.mark.parametrize("last", [0, -1, 2.5, "3"], ids=repr)
def test_last_logits(omni, last):
    with pytest.raises(OmniError, match=r"last is .*; it must be a whole number 1 or more"):
        omni.thinker_logits(ASK, last=last)


@pytest.fixture
def loaded(checkpoint_7b, tmp_path):
    """Loads the checkpoint with the given text as its generation_config.json."""
    link = lambda file, copy: Path(copy).symlink_to(file)
    directory = shutil.copytree(checkpoint_7b, tmp_path / "checkpoint", copy_function=link)
    path = directory / facade.GENERATION_CONFIG

    def load(settings: object) -> Omni:
        path.unlink(missing_ok=True)
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
        return omni_jax.load(directory, mesh="")

    return load


@pytest.mark.parametrize("settings, message", [
    ("[1]", "must hold a JSON object, not a list"), ("null", "must hold a JSON object"), ("{", "is not valid JSON"),
    ({"eos_token_id": "258"}, "eos_token_id is '258'; it must be a whole number from 0 to 486"),
    ({"eos_token_id": [258, "x"]}, "eos_token_id is 'x'"), ({"eos_token_id": [258.5]}, "eos_token_id is 258.5"),
    ({"eos_token_id": 487}, "eos_token_id is 487"), ({"eos_token_id": -1}, "eos_token_id is -1"),
    ({"eos_token_id": []}, "eos_token_id is an empty list"), ({"eos_token_id": True}, "eos_token_id is True"),
    ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"), ({"top_k": [5]}, "top_k is .5."),
    ({"do_sample": True, "top_p": 2}, "top_p is 2; it must be a number above 0"),
    ({"do_sample": "yes"}, "do_sample is 'yes'; it must be true or false"),
    ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be"),
    ('{"do_sample": true, "temperature": NaN}', "temperature is nan"),
], ids=str)
def test_generation_config_that_says_nonsense(loaded, settings, message):
    with pytest.raises(OmniError, match=rf"generation_config\.json: {message}") as error:
        loaded(settings)
    assert "\n" not in str(error.value)


def test_generation_config_that_says_little(loaded):
    omni = loaded({"eos_token_id": None, "temperature": None, "do_sample": None, "top_k": -1})  # top_k is not used
    assert omni.network.ends == (258,) and omni.sampling == facade.Sampling()
    omni = loaded({"eos_token_id": [258, 256], "do_sample": True, "top_k": 4})
    assert omni.network.ends == (258, 256) and omni.sampling == facade.Sampling(1.0, 1.0, 4)


@pytest.mark.parametrize("options, message", [
    ({"mesh": 4}, "mesh must be text"), ({"mesh": {"model": 1}}, "mesh must be text"),
    ({"mesh": jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])}, "mesh: a Mesh must have the axes data, fsdp"),
    ({"dtype": "float8"}, "dtype 'float8' is not one of"), ({"dtype": {"a": 1}}, "is not one of"),
], ids=["int", "dict", "axes", "dtype", "dict as dtype"])
def test_meshes_and_types_that_are_none(checkpoint_7b, options, message):
    with pytest.raises(OmniError, match=message):
        omni_jax.load(checkpoint_7b, **options)


def test_a_user_without_a_home_keeps_no_programs(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    kept = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(facade.Path, "home", homeless)
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        facade.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)
