"""Adapters: fresh ones change nothing, merged ones change what adapted ones changed, wherever they lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_jax import OmniError, sharding
from omni_jax.inference.networks import abstract_networks
from omni_jax.training import lora
from omni_jax.training.config import LoraConfig
from omni_jax.training.tuned import tuned
from omni_jax.weights import match_params
from omni_jax.weights.names import leaves, nest
from tests.weights.checkpoints import omni_config

# Weights with heads and without, with bias and without, in a stack and outside of one.
EVERYWHERE = LoraConfig(3, 7.0, ("thinker/decoder/layers/*", "thinker/lm_head/*"))
CONFIG = omni_config(num_hidden_layers=2)
TOKENS = np.arange(2 * 11).reshape(2, 11) * 37 % 250


@functools.cache
def networks(mesh: str, scanned: bool, config: LoraConfig | None = EVERYWHERE):
    mesh = sharding.make_mesh(mesh)
    found = abstract_networks(CONFIG, mesh, "float32", scanned)
    return (lora.adapted(found, config, mesh) if config else found)["thinker"], mesh


@functools.cache
def speaking():
    mesh = sharding.make_mesh("")
    return abstract_networks(omni_config(speech=True), mesh, "float32", scanned=True), mesh


def paths(tree: dict) -> dict[str, jax.ShapeDtypeStruct]:
    return dict(leaves({"thinker": tree}))


def drawn(abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Weights by path alone, so that they are the same stacked and apart; b not zero."""
    def draw(path, shape):
        parts = path.split("/layers/")
        if len(parts) == 2 and not parts[1].split("/")[0].isdigit():
            return np.stack([draw(f"{parts[0]}/layers/{i}/{parts[1]}", shape[1:]) for i in range(shape[0])])
        noise = np.random.default_rng(list(path.encode())).standard_normal(shape, np.float32)
        return 1 + 0.1 * noise if path.endswith("scale") else noise / np.sqrt(noise.size)**0.6

    return {path: jax.device_put(draw(path, leaf.shape), leaf.sharding) for path, leaf in abstract.items()}


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params):
    model = nnx.merge(graphdef, params)
    positions = jnp.broadcast_to(jnp.arange(11), (3, 2, 11))
    hidden, _ = model.decoder(model.embed(TOKENS), positions, jnp.ones((2, 11), bool), model.decoder.empty_cache(2, 16))
    return model.logits(hidden)


def logits(graphdef, params: dict[str, jax.Array], mesh) -> np.ndarray:
    with jax.set_mesh(mesh):
        return np.asarray(forward(graphdef, nest(params)["thinker"]))


@functools.cache
def plain_logits():
    """(without adapters, with them, one device, stacked)."""
    (graphdef, tree), mesh = networks("", True)
    bare = networks("", True, None)[0][0]
    params = drawn(paths(tree))
    return logits(bare, lora.without(params), mesh), logits(graphdef, params, mesh)


@pytest.mark.parametrize("scanned", [True, False])
def test_fresh_adapters_change_nothing(scanned):
    (graphdef, tree), mesh = networks("", scanned)
    params = drawn(paths(tree))
    start = lora.fresh(paths(tree), seed=3)
    assert start and set(start) == {path for path in params if lora.is_adapter(path)}
    for path, leaf in start.items():
        spread = np.sqrt(np.prod(leaf.shape[2 if scanned and "/layers/" in path else 1:])) * np.std(leaf)
        assert 0.8 < spread < 1.2 if path.endswith("/a") else not leaf.any(), path
    np.testing.assert_allclose(logits(graphdef, params | start, mesh), plain_logits()[0], atol=2e-6)


def merged(params, abstract):
    """The parameters of the checkpoint that an export of these would write."""
    adapters = {path: np.asarray(leaf) for path, leaf in params.items() if lora.is_adapter(path)}
    found = {}
    for row, tensors in tuned(match_params(nest(lora.without(params)), CONFIG), adapters, EVERYWHERE):
        layers = [tensor.load().reshape(row.layer_shape) for tensor in tensors]
        own = row.leaf_paths(abstract)
        found |= dict(zip(own, [np.stack(layers)] if own == [row.path] and row.layers else layers, strict=True))
    return {path: jax.device_put(found[path], leaf.sharding) for path, leaf in abstract.items()}


@pytest.mark.parametrize("spec, scanned", [("", True), ("", False), ("data=2,fsdp=2,model=2", True),
                                           ("model=8", True)])
def test_merged_equals_adapted(spec, scanned):
    (graphdef, tree), mesh = networks(spec, scanned)
    params = drawn(paths(tree))
    adapted = logits(graphdef, params, mesh)
    bare, tree = networks(spec, scanned, None)[0]
    again = logits(bare, merged(params, paths(tree)), mesh)
    scale = np.abs(adapted).max()
    np.testing.assert_allclose(again / scale, adapted / scale, atol=1e-5)
    np.testing.assert_allclose(adapted / scale, plain_logits()[1] / scale, atol=1e-5)
    assert np.abs(adapted - plain_logits()[0]).max() > 0.05 * scale


def test_adapters_lie_as_their_weights_do():
    (_, tree), _ = networks("fsdp=2,model=4", True, LoraConfig(3, 7.0, ("thinker/decoder/layers/*",)))
    found = paths(tree)
    for path in filter(lora.is_adapter, found):
        stem = path[:-len("lora/a")]
        spec, inputs = found[stem + "weight"].sharding.spec, found[stem + "lora/a"].ndim - 2
        expected = (spec[0], None, *spec[-inputs:]) if path.endswith("/a") else (*spec[:-inputs], None)
        assert tuple(found[path].sharding.spec) == expected, path
    assert sum(map(lora.is_adapter, found)) == 14


def test_one_layer_form_or_the_other_takes_the_same_patterns():
    config = LoraConfig(3, 7.0, ("thinker/decoder/layers/[qv]/*",))
    stacked, apart = (paths(networks("", scanned, config)[0][1]) for scanned in (True, False))
    own = lambda found: sorted(path for path in found if lora.is_adapter(path))
    assert own(stacked) == [f"thinker/decoder/layers/{m}/lora/{leaf}" for m in "qv" for leaf in "ab"]
    assert own(apart) == [path.replace("layers", f"layers/{i}") for i in range(2) for path in own(stacked)]


@pytest.mark.parametrize("pattern, near", [("thinker/decoder/layers/qq/weight", "thinker/decoder/layers/q/weight"),
                                           ("thinker/decoder/norm/*", "thinker/decoder/layers"),
                                           ("token2wav/dit/layers/*", "layers")])
def test_a_pattern_that_fits_nothing(pattern, near):
    found, mesh = speaking()
    with pytest.raises(OmniError, match=r"lora.patterns: .* fits no matrix; near it are .*" + near):
        lora.adapted(found, LoraConfig(3, 7.0, ("thinker/*/q/weight", pattern)), mesh)
