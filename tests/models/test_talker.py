"""The Talker's parts beside the reference's, and what it must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import Qwen2_5OmniTalkerConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniTalkerForConditionalGeneration

from omni_jax.config import OmniConfig
from omni_jax.inference.networks import abstract_networks
from omni_jax.sharding import make_mesh
from omni_jax.weights.names import nest, rows
from tests import tiny

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=["7b", "3b"])
def pair(request):
    """(our Talker, the reference's) with the same energetic weights."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    data = tiny.config(request.param, speech=True)
    theirs = Qwen2_5OmniTalkerForConditionalGeneration(Qwen2_5OmniTalkerConfig(**data["talker_config"])).eval()
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape) * (1.5 / parameter.shape[-1] ** 0.5))
    config, state = OmniConfig.from_json(data), theirs.state_dict()
    graphdef, abstract = abstract_networks(config, make_mesh(""), "float32", scanned=True)["talker"]
    flat = {}
    for row in rows(config, ["talker"]):
        layers = [state.pop(name.removeprefix("talker.")).numpy().reshape(row.layer_shape) for name in row.names()]
        flat[row.path.removeprefix("talker/")] = np.stack(layers) if row.layers else layers[0]
    assert not state
    params = jax.tree.map(lambda wanted, leaf: jnp.asarray(leaf).reshape(wanted.shape), abstract, nest(flat))
    return nnx.merge(graphdef, params), theirs


def relative(ours, theirs):
    theirs = theirs.numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def test_embedding_projection_and_head(pair):
    ours, theirs = pair
    codes = RNG.integers(0, theirs.config.vocab_size, (2, 9))
    x = RNG.normal(size=(2, 9, theirs.config.embedding_size)).astype(np.float32)
    hidden = RNG.normal(size=(2, 9, theirs.config.hidden_size)).astype(np.float32)
    # The reference's row of the padding id is an ordinary row to a trained model.
    np.testing.assert_array_equal(ours.embed(codes), theirs.get_input_embeddings()(torch.tensor(codes)).numpy())
    assert relative(ours.proj(x), theirs.thinker_to_talker_proj(torch.tensor(x))) < 1e-5
    assert relative(ours.logits(hidden), theirs.codec_head(torch.tensor(hidden))) < 1e-5


@pytest.mark.parametrize("start", [0, 30_000])
def test_decoder(pair, start):
    """Under TMRoPE's three unequal rows of ids, near the start and far out."""
    ours, theirs = pair
    x = RNG.normal(size=(2, 23, theirs.config.embedding_size)).astype(np.float32)
    positions = start + np.cumsum(RNG.integers(0, 4, (3, 2, 23)), axis=-1)
    expected = theirs.model(inputs_embeds=theirs.thinker_to_talker_proj(torch.tensor(x)),
                            position_ids=torch.tensor(positions)).last_hidden_state
    hidden, cache = ours(jnp.asarray(x), jnp.asarray(positions, jnp.int32), jnp.ones((2, 23), bool),
                         ours.decoder.empty_cache(2, 32))
    assert relative(hidden, expected) < 1e-5 and int(cache.used) == 23
    assert relative(ours.logits(hidden), theirs.codec_head(expected)) < 1e-5


def test_width_of_the_heads_is_not_the_hidden_size(pair):
    ours, theirs = pair
    config = theirs.config
    assert config.num_attention_heads * config.head_dim != config.hidden_size
    assert ours.decoder.layers.q.weight.shape[1:3] == (config.num_attention_heads, config.head_dim)
