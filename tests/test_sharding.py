"""Meshes: what lies where, and that it makes no difference to the answers. Runs on 8 virtual CPU devices."""

import functools
import itertools
import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import omni_jax
from omni_jax import OmniError, sharding
from omni_jax.config import OmniConfig
from omni_jax.data.batch import collate
from omni_jax.inference import generate
from omni_jax.inference.networks import abstract_networks
from omni_jax.inference.sampling import Sampling
from omni_jax.models import audio_encoder, vision_encoder
from omni_jax.models.thinker import Thinker
from omni_jax.weights.names import leaves
from tests import tiny
from tests.inference.test_generate import MIXED, TEXT

SPLITS = [split for split in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(split) == 8]


def name(split):
    return ",".join(f"{axis}={size}" for axis, size in zip(sharding.MESH_AXES, split, strict=True))


def test_a_structure_is_hashed_once(monkeypatch):
    build = lambda: sharding.abstract(Thinker, OmniConfig.from_json(tiny.config("7b")).thinker_config,
                                      sharding.make_mesh(""))[0]
    first, second = build(), build()
    assert first == second and hash(first) == hash(second)
    monkeypatch.setattr(nnx.GraphDef, "__hash__", None)
    assert hash(first) == hash(second)


@pytest.mark.parametrize("spec, sizes", [("", (1, 1, 1)), (None, (1, 1, 8)), ("data=2, model=4", (2, 1, 4)),
                                         ("fsdp=8", (1, 8, 1))])
def test_mesh_from_words(spec, sizes):
    assert tuple(sharding.make_mesh(spec).shape.values()) == sizes


@pytest.mark.parametrize("spec, message", [("modle=4", "'modle=4' is not one of data, fsdp, model"),
                                           ("model=0", "'model=0'"), ("model", "'model'"),
                                           ("model=²", "'model=²'"), (8, "not a int"), ({"model": 8}, "not a dict"),
                                           ("data=4,model=4", "needs 16 devices and 8 are here")])
def test_bad_meshes(spec, message):
    with pytest.raises(OmniError, match=message):
        sharding.make_mesh(spec)


@pytest.mark.parametrize("axes, found", [(("data", "model"), "data, model"), (("fsdp", "data", "model"), "fsdp, data"),
                                         (("a", "b", "c"), "a, b, c")])
def test_a_mesh_with_other_axes(axes, found):
    mesh = jax.make_mesh((1, 2, 4)[-len(axes):], axes)
    with pytest.raises(OmniError, match=f"axes data, fsdp, model in this order, and this one has {found}"):
        sharding.make_mesh(mesh)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit, AxisType.Manual], ids=str)
def test_a_given_mesh_becomes_automatic(kind):
    given = jax.make_mesh((1, 2, 4), sharding.MESH_AXES, axis_types=(kind,) * 3)
    mesh = sharding.make_mesh(given)
    assert mesh.axis_types == (AxisType.Auto,) * 3 and mesh.axis_names == sharding.MESH_AXES
    assert (mesh.devices == given.devices).all() and mesh.devices.shape == (1, 2, 4)


@pytest.mark.parametrize("kv_heads, sizes", [(4, (1, 2, 4)), (2, (1, 4, 2)), (1, (1, 8, 1)), (16, (1, 1, 8))])
def test_by_default_model_goes_as_far_as_the_kv_heads(kv_heads, sizes):
    assert tuple(sharding.default_mesh(kv_heads).shape.values()) == sizes


@pytest.mark.parametrize("model, q, o", [
    (2, P(None, "model", None, "fsdp"), P(None, "fsdp", "model")),
    (4, P(None, "model", None, "fsdp"), P(None, "fsdp", "model")),
    # 28 and 4 heads on eight devices: the rows of a head are split instead, and of `o`, where heads lie flat, the rows.
    (8, P(None, None, "model", None), P(None, "model", None)),
])
def test_heads_of_the_7b_on_any_axis(model, q, o):
    mesh = sharding.make_mesh(f"fsdp={8 // model},model={model}")
    config = OmniConfig.load("configs/qwen2.5-omni-7b.json").thinker_config
    _, params = sharding.abstract(Thinker, config, mesh)
    layers = params["decoder"]["layers"]
    assert layers["q"]["weight"].sharding.spec == layers["k"]["weight"].sharding.spec == q
    assert layers["o"]["weight"].sharding.spec == o
    fsdp = "fsdp" if model < 8 else None
    assert layers["gate"]["weight"].sharding.spec == P(None, "model", fsdp)
    assert params["embed"]["weight"].sharding.spec == P("model", fsdp)
    if model == 8:  # 3420 columns on eight devices
        assert params["vision"]["layers"]["gate"]["weight"].sharding.spec == P(None, None, "model")


def test_numbers_of_a_group_stay_together():
    mesh = sharding.make_mesh("model=8")
    assert sharding.resolve((None, "heads"), (5, 48), mesh) == P(None, "model")
    assert sharding.resolve((None, ("heads", 4)), (5, 48), mesh) == P(None, None)  # 12 heads
    assert sharding.resolve((None, ("heads", 3)), (5, 48), mesh) == P(None, "model")


def test_much_media_is_split_over_all_devices():
    # Sound of the releases: 100 vectors of 1,280 a block.
    assert [sharding.media_axis(100 * blocks, 1280, 5120) for blocks in (4, 38)] == ["batch", "batch"]
    assert [sharding.media_axis(100 * blocks, 1280, 5120) for blocks in (39, 64)] == ["blocks", "blocks"]
    mesh = sharding.make_mesh("fsdp=2,model=4")
    for shape, spec in [((16, 20), P(("data", "fsdp", "model"), None)), ((1, 24), P(None, ("data", "fsdp", "model"))),
                        ((2, 5), P(("data", "fsdp"), None)), ((1, 5), P(None, None))]:
        assert sharding.resolve(("blocks", "blocks"), shape, mesh) == spec


@pytest.mark.parametrize("size", ["3b", "7b"])
@pytest.mark.parametrize("split", SPLITS, ids=name)
def test_every_large_weight_of_the_releases_is_split(size, split):
    """Nothing of weight is left whole on every device, whichever way eight devices are split."""
    mesh = sharding.make_mesh(name(split))
    _, params = sharding.abstract(Thinker, OmniConfig.load(f"configs/qwen2.5-omni-{size}.json").thinker_config, mesh)
    weights = split[1] * split[2]  # `data` holds copies
    whole = total = 0
    for path, leaf in leaves(params):
        share = np.prod(leaf.sharding.shard_shape(leaf.shape)) / leaf.size
        assert share >= 1 / weights, path
        total += leaf.size
        whole += leaf.size * share
    assert whole / total < 1.1 / weights


def answers(directory, mesh):
    """The model, the logits of the first token of two rows, and six greedy tokens of each."""
    omni = omni_jax.load(directory, mesh=mesh)
    prompts = [omni.prompt(conversation) for conversation in (MIXED, TEXT)]
    session = generate.begin(omni.network, collate(prompts, omni.config), Sampling(), np.array([6, 6]),
                             np.zeros(2, np.uint32))
    logits = np.asarray(session.state.logits)
    generate.advance(omni.network, session, 6)
    return omni, logits, np.asarray(session.state.tokens)[:, :6]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    @functools.cache
    def of(size):
        path = tiny.write_checkpoint(tmp_path_factory.mktemp(size) / "checkpoint", f"{size}-heads", dtype="float32")
        return path, *answers(path, "")[1:]

    return of


# Each axis alone, two together and all three.
QUICK_ANSWERS = {"7b": ((1, 1, 8), (1, 8, 1), (8, 1, 1), (1, 2, 4), (2, 1, 4), (2, 2, 2)),
                 "3b": ((1, 1, 8), (2, 2, 2))}


@pytest.mark.parametrize("size, split", [
    pytest.param(size, split, marks=pytest.mark.slow if split not in QUICK_ANSWERS[size] else [],
                 id=f"{size}-{name(split)}") for size in ("7b", "3b") for split in SPLITS])
def test_every_split_gives_the_same_answers(expected, size, split):
    """With the releases' head counts; the other splits are left to the slow suite."""
    path, logits, tokens = expected(size)
    omni, split_logits, split_tokens = answers(path, name(split))
    _, abstract = abstract_networks(omni.config, omni.network.mesh, "float32")["thinker"]
    jax.tree.map(lambda leaf, wanted: leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim) or pytest.fail(),
                 omni.network.params, abstract)
    assert np.abs(split_logits - logits).max() / np.abs(logits).max() < 1e-5
    np.testing.assert_array_equal(split_tokens, tokens)


def test_little_media_beside_split_heads_gives_the_same_answers(expected, monkeypatch):
    """The towers of small models take all media for much: here, for little."""
    path, logits, tokens = expected("7b")
    for tower in (audio_encoder, vision_encoder):
        monkeypatch.setattr(tower, "media_axis", lambda *sizes: "batch")
    jax.clear_caches()
    _, split_logits, split_tokens = answers(path, "data=1,fsdp=2,model=4")
    jax.clear_caches()
    assert np.abs(split_logits - logits).max() / np.abs(logits).max() < 1e-5
    np.testing.assert_array_equal(split_tokens, tokens)


@pytest.mark.parametrize("size, model, q, o, k", [
    # 12 query and 4 kv heads; output projections are stored flat and keep their heads whole.
    ("7b", 2, P(None, "model", None, "fsdp"), P(None, "fsdp", "model"), P(None, "model", None, "fsdp")),
    ("7b", 4, P(None, "model", None, "fsdp"), P(None, "fsdp", "model"), P(None, "model", None, "fsdp")),
    ("7b", 8, P(None, None, "model", None), P(None, "model", None), P(None, None, "model", None)),
    # 14 and 2: on four devices both fall to the rows of a head.
    ("3b", 2, P(None, "model", None, "fsdp"), P(None, "fsdp", "model"), P(None, "model", None, "fsdp")),
    ("3b", 4, P(None, None, "model", "fsdp"), P(None, "fsdp", None), P(None, None, "model", "fsdp")),
    ("3b", 8, P(None, None, "model", None), P(None, "model", None), P(None, None, "model", None)),
])
def test_heads_of_the_talkers_on_any_axis(size, model, q, o, k):
    mesh = sharding.make_mesh(f"fsdp={8 // model},model={model}")
    config = OmniConfig.load(f"configs/qwen2.5-omni-{size}.json")
    params = abstract_networks(config, mesh, "float32", scanned=True)["talker"][1]
    layers, fsdp = params["decoder"]["layers"], "fsdp" if model < 8 else None
    assert layers["q"]["weight"].sharding.spec == q and layers["k"]["weight"].sharding.spec == k
    assert layers["o"]["weight"].sharding.spec == o
    assert layers["gate"]["weight"].sharding.spec == P(None, "model", fsdp)
    assert params["embed"]["weight"].sharding.spec == params["codec_head"]["weight"].sharding.spec == P("model", fsdp)
    assert params["proj"]["weight"].sharding.spec == P(*(("fsdp", "model") if fsdp else ("model", None)))


@pytest.mark.parametrize("size", ["3b", "7b"])
@pytest.mark.parametrize("split", SPLITS, ids=name)
def test_every_large_weight_of_the_talkers_is_split(size, split):
    config = OmniConfig.load(f"configs/qwen2.5-omni-{size}.json")
    _, params = abstract_networks(config, sharding.make_mesh(name(split)), "float32", scanned=True)["talker"]
    sizes = {path: (np.prod(leaf.sharding.shard_shape(leaf.shape)), leaf.size) for path, leaf in leaves(params)}
    # Where `model` does not divide the heads, the output projection, stored flat, has only `fsdp`.
    held, total = sizes.pop("decoder/layers/o/weight")
    assert held / total <= 1 / split[1]
    held, total = np.sum(list(sizes.values()), axis=0)
    assert held / total < 1.1 / (split[1] * split[2])


# What each axis of a weight of the speaking networks is, by its name: E the residual stream, M the MLP or the
# vocabulary, N heads, H head_dim, O heads stored flat; all others lie whole on every device.
AXES = {
    r"decoder/layers/(q|k|v)/weight": ".NHE", r"decoder/layers/(q|k|v)/bias": ".NH", r"decoder/layers/o/weight": ".EO",
    r"decoder/layers/(gate|up)/weight": ".ME", r"decoder/layers/down/weight": ".EM", r"proj/weight": "EE",
    r"(embed|codec_head|dit/codec_embed)/weight": "ME",
    r"dit/layers/(q|k|v)/weight": ".NHE", r"dit/layers/(q|k|v)/bias": ".NH", r"dit/layers/o/weight": ".EO",
    r"dit/layers/fc1/weight": ".ME", r"dit/layers/fc1/bias": ".M", r"dit/layers/fc2/weight": ".EM",
    r"dit/layers/modulation/weight": "..ME", r"dit/layers/modulation/bias": "..M",
    r"dit/modulation/weight": ".ME", r"dit/modulation/bias": ".M", r"dit/time/fc1/weight": "M.",
    r"dit/time/fc1/bias": "M", r"dit/time/fc2/weight": "EM", r"dit/input/weight": "E.", r"dit/output/weight": ".E",
    r"dit/speaker/.*/weight": "E..", r"bigvgan/ups/\d+/weight": ".E.",
    r"bigvgan/(first|last|resblocks/\d+/convs\d/\d)/weight": "E..",
    r".*/(bias|alpha|beta|\w*norm/scale)": "...",
}


def lies(axes, shape, heads, split):
    """The partition of a weight, by hand."""
    _, fsdp, model = split
    spec, divides = [None] * len(shape), lambda size, ways: ways > 1 and size % ways == 0
    for i, (axis, size) in enumerate(zip(axes, shape, strict=False)):
        if axis == "E" and divides(size, fsdp) and "fsdp" not in spec:
            spec[i] = "fsdp"
        if axis in "MNHO" and divides(heads if axis == "O" else size, model) and "model" not in spec:
            spec[i] = "model"
    for i, (axis, size) in enumerate(zip(axes, shape, strict=False)):
        if axis == "E" and spec[i] is None and divides(size, model) and "model" not in spec:
            spec[i] = "model"
    return P(*spec)


@pytest.mark.parametrize("size, network", [("7b", "talker"), ("3b", "talker"), ("7b", "token2wav")])
def test_where_every_weight_of_speech_lies(size, network, monkeypatch):
    """At the released sizes, whichever way eight devices are split."""
    made, evaluate = [], nnx.eval_shape  # shapes are found once: it takes a second or two
    monkeypatch.setattr(nnx, "eval_shape", lambda build: made[0] if made else made.append(evaluate(build)) or made[0])
    config = OmniConfig.load(f"configs/qwen2.5-omni-{size}.json")
    heads = (config.talker_config if network == "talker" else config.token2wav_config.dit_config).num_attention_heads
    for split in SPLITS:
        mesh = sharding.make_mesh(name(split))
        params = abstract_networks(config, mesh, "float32", scanned=True, names=[network])[network][1]
        for path, leaf in leaves(params):
            axes = next(axes for pattern, axes in AXES.items() if re.fullmatch(pattern, path))
            assert leaf.sharding.spec == lies(axes, leaf.shape, heads, split), (path, split)


SPOKEN = {"max_new_tokens": 6, "talker_max_new_tokens": 20, "talker_temperature": 0}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    @functools.cache
    def of(size):
        path = tmp_path_factory.mktemp(size) / "talking"
        tiny.write_checkpoint(path, f"{size}-heads", speech=True, dtype="float32", seed=1)
        return path, omni_jax.load(path, mesh="").generate([MIXED, TEXT], **SPOKEN)

    return of


QUICK = {"7b": ((1, 2, 4),), "3b": ((2, 2, 2),)}


@pytest.mark.parametrize("size, split", [
    pytest.param(size, split, marks=pytest.mark.slow if split not in QUICK[size] else [], id=f"{size}-{name(split)}")
    for size in ("7b", "3b") for split in SPLITS])
def test_every_split_speaks_the_same(spoken, size, split):
    path, expected = spoken(size)
    omni = omni_jax.load(path, mesh=name(split))
    abstract = abstract_networks(omni.config, omni.network.mesh, "float32")
    for network, params in (("talker", omni.voices.talker.params), ("token2wav", omni.voices.synthesizer.params)):
        jax.tree.map(lambda leaf, wanted: leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim) or pytest.fail(),
                     params, abstract[network][1])
    for reply, wanted in zip(omni.generate([MIXED, TEXT], **SPOKEN), expected, strict=True):
        assert reply.token_ids == wanted.token_ids
        np.testing.assert_array_equal(reply.codes, wanted.codes)
        assert len(set(wanted.codes.tolist())) > 10
        assert np.abs(reply.waveform - wanted.waveform).max() < 1e-4
