"""The speaker encoder beside the reference's."""

import numpy as np
import pytest
import torch
from flax import nnx

from tests.models.token2wav import TINY, ours, reference, relative


@pytest.mark.parametrize("frames", [5, 31, 200])
def test_voice_of_a_recording(frames):
    graphdef, params = ours(reference(), TINY)
    mel = np.random.default_rng(frames).normal(size=(2, frames, 14)).astype(np.float32)
    with torch.no_grad():
        expected = reference().code2wav_dit_model.input_embed.spk_encoder(torch.tensor(mel))
    assert expected.std(0).min() > 1e-3  # the two recordings differ
    assert relative(nnx.merge(graphdef, params).dit.speaker(mel), expected) < 1e-5
