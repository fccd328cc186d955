"""The vocoder's losses beside the published formulas in numpy, and what its gradients reach."""

import dataclasses

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import optax
import pytest
from flax import nnx

from omni_jax import sharding
from omni_jax.config import BigVGANConfig, DiscriminatorConfig, MelConfig
from omni_jax.errors import OmniError
from omni_jax.models.bigvgan import BigVGAN
from omni_jax.models.discriminators import Discriminators, Map
from omni_jax.training import adversarial
from omni_jax.training.batch import ClipBatch
from omni_jax.training.config import DataConfig, Source, SpeechConfig, TrainConfig

MEL = MelConfig(n_fft=36, hop=6, bins=5)
VOCODER = BigVGANConfig(mel_dim=5, upsample_initial_channel=14, resblock_kernel_sizes=(3,),
                        resblock_dilation_sizes=((1, 2, 3),), upsample_rates=(6,), upsample_kernel_sizes=(8,))
JUDGES = DiscriminatorConfig(periods=(3,), period_channels=(4, 7), resolutions=((32, 8, 24),), spectral_channels=3)
RUN = TrainConfig(model="m", data=DataConfig((Source("train.jsonl"),)), dtype="float32",
                  speech=SpeechConfig(mel=MEL, mel_weight=9.0, match_weight=3.0))
FRAMES = 20


@dataclasses.dataclass(frozen=True)
class Vocoder:
    """What the objective reads of a configuration, or of the networks."""

    bigvgan: object = None
    bigvgan_config: object = VOCODER

    @property
    def token2wav_config(self):
        return self


def built(network, config, seed):
    """(graphdef, params) with random weights."""
    graphdef, params = sharding.abstract(network, config, sharding.make_mesh(""))
    random = np.random.default_rng(seed)
    draw = lambda leaf: jnp.float32(random.standard_normal(leaf.shape) * max(np.prod(leaf.shape[1:]), 25) ** -0.5)
    return graphdef, jax.tree.map(draw, params)


VOICE = built(lambda config, rngs, dtype: BigVGAN(rngs, config, dtype), VOCODER, 0)
JUDGE = built(Discriminators, JUDGES, 1)


def batch_of(frames=(FRAMES, 13), seed=2):
    random = np.random.default_rng(seed)
    tone = np.sin(np.arange(FRAMES * MEL.hop + 2 * MEL.pad) * random.uniform(0.2, 0.9, (len(frames), 1)))
    wave, none = 0.4 * tone + 0.1 * random.standard_normal(tone.shape), jnp.zeros((len(frames), 0))
    return ClipBatch(jnp.float32(wave), jnp.array(frames), none, none, none, none, none)


PARAMS = {"voice": VOICE[1], "judges": JUDGE[1]}
LOSS, JUDGING = {"loss": 1.0}, {"discriminator": 1.0}
SAYING = {"adversarial": 1.0, "matching": 3.0, "mel": 9.0}


@jax.jit
def _weighed(params, batch, factors):
    def total(params):
        models = {"token2wav": Vocoder(nnx.merge(VOICE[0], params["voice"])),
                  "discriminators": nnx.merge(JUDGE[0], params["judges"])}
        sums = adversarial.vocoder(models, Vocoder(), RUN, batch)
        return sum(factors[name] * sums[name] for name in factors), sums

    return jax.grad(total, has_aux=True)(params)


def weighed(params, batch, factors):
    """(gradient of the sum of these parts of the loss, all parts), by one program."""
    return _weighed(params, batch, dict.fromkeys((*LOSS, *JUDGING, *SAYING), 0.0) | factors)


def sums(batch):
    return weighed(PARAMS, batch, LOSS)[1]


def judgements(seed):
    """Two judges' maps of two rows, of which the second has fewer steps."""
    random = np.random.default_rng(seed)
    draw = lambda T, W, C, steps: Map(random.standard_normal((2, T, W, C)).astype(np.float32), np.array(steps))
    return [[draw(7, 3, 4, (7, 4)), draw(3, 3, 1, (3, 2))], [draw(9, 5, 2, (9, 1)), draw(9, 5, 1, (9, 1))]]


def of_row(judged, row):
    """float64 arrays of what exists of one row."""
    return [[map_.values[row, :map_.steps[row]].astype(np.float64) for map_ in maps] for maps in judged]


@pytest.mark.parametrize("row", [0, 1])
def test_losses_are_the_published_formulas(row):
    real, made = judgements(0), judgements(1)
    own_real, own_made = of_row(real, row), of_row(made, row)
    judging = sum(np.mean((r[-1] - 1) ** 2) + np.mean(m[-1] ** 2) for r, m in zip(own_real, own_made, strict=True))
    fooling = sum(np.mean((m[-1] - 1) ** 2) for m in own_made)
    matching = sum(np.mean(np.abs(a - b)) for r, m in zip(own_real, own_made, strict=True)
                   for a, b in zip(r, m, strict=True))
    judge, fool, match = (jax.jit(loss) for loss in (adversarial.discriminator_loss, adversarial.generator_loss,
                                                     adversarial.matching_loss))
    assert judge(real, made)[row] == pytest.approx(judging, rel=1e-6)
    assert fool(made)[row] == pytest.approx(fooling, rel=1e-6)
    assert match(real, made)[row] == pytest.approx(matching, rel=1e-6)


def test_distance_of_mels():
    """Each sound among the clip's own neighbours, the shorter row only where it exists."""
    batch, random = batch_of(), np.random.default_rng(3)
    said = (0.3 * random.standard_normal((2, FRAMES * MEL.hop))).astype(np.float32)
    filters = librosa.filters.mel(sr=MEL.sample_rate, n_fft=MEL.n_fft, n_mels=MEL.bins, fmax=MEL.high, dtype=np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL.n_fft) / MEL.n_fft)

    def mel(wave, frames):
        starts = [wave[i * MEL.hop:i * MEL.hop + MEL.n_fft] * window for i in range(frames)]
        return np.log(np.maximum(np.abs(np.fft.rfft(starts)) @ filters.T, MEL.floor))

    found = adversarial.mel_distance(batch.wave, said, batch.frames, MEL)
    for row, frames in enumerate(batch.frames.tolist()):
        clip = np.asarray(batch.wave[row], np.float64)
        instead = clip.copy()
        instead[MEL.pad:MEL.pad + frames * MEL.hop] = said[row, :frames * MEL.hop]
        assert found[row] == pytest.approx(np.abs(mel(instead, frames) - mel(clip, frames)).mean(), rel=1e-5)


def test_gradients_reach_their_networks_alone():
    """Of the whole loss, the judges get the gradient of their own part, and the voice that of the rest."""
    batch = batch_of()
    whole, own, rest = (weighed(PARAMS, batch, factors)[0] for factors in (LOSS, JUDGING, SAYING))
    size = lambda tree: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
    assert size(own["voice"]) == size(rest["judges"]) == 0 < min(size(own["judges"]), size(rest["voice"]))
    close = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * size(b)),
                                      a, b)
    close(whole["judges"], own["judges"])
    close(whole["voice"], rest["voice"])


def test_padding_and_empty_rows_weigh_nothing():
    batch = batch_of((13, 0))
    found = sums(batch)
    garbage = batch.wave.at[0, 13 * MEL.hop + 2 * MEL.pad:].set(0.9).at[1].set(-0.3)
    again = sums(batch._replace(wave=garbage))
    assert found["weight"] == 13
    for name, value in found.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-5, err_msg=name)


def test_rows_add_up():
    batch = batch_of()
    rows = [sums(batch._replace(frames=batch.frames.at[other].set(0))) for other in (0, 1)]
    for name, value in sums(batch).items():
        np.testing.assert_allclose(rows[0][name] + rows[1][name], value, rtol=1e-4, err_msg=name)


def test_it_learns():
    batch, optimizer = batch_of(), optax.adam(3e-3, 0.8, 0.99)

    @jax.jit
    def update(params, state, gradient):
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for _ in range(40):
        gradient, now = weighed(params, batch, LOSS)
        params, state = update(params, state, jax.tree.map(lambda x, now=now: x / now["weight"], gradient))
        found.append({name: float(value / now["weight"]) for name, value in now.items()})
    assert found[-1]["mel"] < 0.6 * found[0]["mel"]
    assert found[-1]["discriminator"] < 0.8 * found[0]["discriminator"]


@pytest.mark.parametrize("run, named", [(dataclasses.replace(RUN, dtype="bfloat16"), "dtype"),
                                        (dataclasses.replace(RUN, speech=SpeechConfig()), "speech.mel")])
def test_bad_settings(run, named):
    with pytest.raises(OmniError, match=named):
        adversarial.check(Vocoder(), run)
