"""Codes to sound: the whole-clip solve beside the reference, and the chunked one beside the whole."""

import copy
import functools

import jax
import numpy as np
import pytest
import torch

from omni_jax import OmniError
from omni_jax.data.speech import check_codes
from omni_jax.inference import token2wav
from omni_jax.inference.schedule import SCHEDULE, Schedule
from omni_jax.sharding import make_mesh
from omni_jax.weights.speakers import Speaker
from tests.models.token2wav import TINY, config_of, ours, reference, relative

CONFIG = config_of(TINY)
D = CONFIG.dit_config
LENGTHS = [1, 11, 12, 13, 23, 24, 25, 250]


def codes_of(length, seed=0):
    return np.random.default_rng((length, seed)).integers(0, D.codec_rows, length).astype(np.int32)


def speaker_of(seed, frames=31):
    rng = np.random.default_rng(seed)
    return Speaker(0, rng.normal(size=(1, D.enc_emb_dim)).astype(np.float32),
                   rng.normal(size=(1, frames, D.mel_dim)).astype(np.float32))


@functools.cache
def synthesizer(mesh="data=1", scanned=False):
    graphdef, params = ours(reference(), TINY, mesh, scanned)
    return token2wav.prepare(CONFIG, graphdef, params, make_mesh(mesh))


@functools.cache
def voice(seed=0):
    return token2wav.encode_speaker(synthesizer(), speaker_of(seed))


def synthesize(codes, solve="block", seed=5, **options):
    return token2wav.synthesize(synthesizer(), [voice()], [codes], np.array([seed], np.uint32), solve, **options)[0]


def solved_by_reference(model, codes, speaker, noise, steps=9):
    dtype = next(model.parameters()).dtype
    real, torch.randn = torch.randn, lambda shape, **kw: torch.tensor(noise, dtype=dtype)[None]
    try:
        mel = model.code2wav_dit_model.sample(torch.tensor(speaker.cond, dtype=dtype),
                                              torch.tensor(speaker.ref_mel, dtype=dtype), torch.tensor(codes)[None],
                                              num_steps=steps + 1)
    finally:
        torch.randn = real
    return mel[0].T.numpy(), model.code2wav_bigvgan_model(mel).detach().numpy()


@pytest.mark.parametrize("length", [1, 13, 100])
def test_whole_solve_is_the_references(length):
    codes = codes_of(length)
    noise = np.random.default_rng(1).normal(size=(2 * length, D.mel_dim)).astype(np.float32)
    mel, wave = solved_by_reference(reference(), codes, speaker_of(0), noise)
    exact_mel, exact_wave = solved_by_reference(copy.deepcopy(reference()).double(), codes, speaker_of(0), noise)
    seeds = np.zeros(1, np.uint32)
    our_mel = token2wav.whole_mel(synthesizer(), [voice()], [codes], seeds, [noise])[0, :2 * length]
    our_wave = synthesize(codes, "whole", noise=[noise])
    assert our_wave.shape == wave.shape == (length * CONFIG.samples_per_code,)
    assert np.abs(our_mel - exact_mel).max() < 4 * np.abs(mel - exact_mel).max()
    assert np.abs(our_wave - exact_wave).max() < 4 * np.abs(wave - exact_wave).max()
    assert wave.std() > 0.01


def test_with_fewer_steps_too():
    codes, noise = codes_of(13), np.random.default_rng(1).normal(size=(26, D.mel_dim)).astype(np.float32)
    full = synthesizer()
    quick = token2wav.prepare(full.config, full.graphdef, full.params, full.mesh, 4)
    ours, theirs = (token2wav.whole_mel(each, [voice()], [codes], np.zeros(1, np.uint32), [noise])[0, :26]
                    for each in (quick, full))
    wanted, _ = solved_by_reference(reference(), codes, speaker_of(0), noise, 4)
    assert relative(ours, wanted) < 1e-4 < 1e-3 < relative(theirs, wanted)


@pytest.mark.parametrize("length, schedules", [(55, ((3, 1, 2),)), *(pytest.param(
    *each, marks=pytest.mark.slow) for each in ((55, ((1,),)), (100, ((1,), (2,), (3, 1, 2)))))])
def test_with_look_ahead_to_the_end_blocks_are_the_whole(length, schedules):
    codes = codes_of(length)
    whole = synthesize(codes, "whole")
    for sizes in schedules:
        assert relative(synthesize(codes, schedule=Schedule(sizes, (9,))), whole) < 1e-6
    short = relative(synthesize(codes, schedule=Schedule((1,), (0,))), whole)
    assert short > 1e-4  # else this test could not fail


@pytest.mark.slow
def test_length():
    for length in LENGTHS:
        for solve in token2wav.SOLVES:
            assert synthesize(codes_of(length), solve).shape == (length * CONFIG.samples_per_code,)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("sizes, aheads", [((2, 2, 4, 8), (1, 2)), ((1, 2), (0,)), ((1,), (1,))])
def test_streamed_is_unstreamed(length, sizes, aheads):
    codes, schedule = codes_of(length), Schedule(sizes, aheads)
    expected = synthesize(codes, schedule=schedule)
    assert expected.shape == (length * CONFIG.samples_per_code,)
    session = token2wav.begin(synthesizer(), [voice()], np.array([5], np.uint32), schedule)
    sounds, done, rng = [], 0, np.random.default_rng(length)
    while done < length:
        step = int(rng.integers(1, 17))
        sounds += token2wav.push(session, [codes[done:done + step]])
        done += step
        codes_out = sum(sound.codes[0] for sound in sounds)
        assert codes_out * 2 <= max(0, done * 2 - token2wav.CONTEXT)
    sounds += token2wav.finish(session)
    assert relative(np.concatenate([sound.rows()[0] for sound in sounds]), expected) < 1e-5
    assert sum(sound.codes[0] for sound in sounds) == length


def test_first_sound_is_a_fifth_of_a_second():
    session = token2wav.begin(synthesizer(), [voice()], np.array([5], np.uint32))
    assert not token2wav.push(session, [codes_of(35)])
    sound, = token2wav.push(session, [codes_of(1)])
    assert sound.codes == [10]  # 4,800 samples at the released rate


@pytest.mark.slow
def test_rows_are_their_single_runs():
    lengths, seeds = [13, 250, 1, 60, 24], np.arange(5, dtype=np.uint32)
    voices = [voice(i % 2) for i in range(5)]
    codes = [codes_of(length) for length in lengths]
    for solve in token2wav.SOLVES:
        rows = token2wav.synthesize(synthesizer(), voices, codes, seeds, solve)
        for i in range(5):
            single, = token2wav.synthesize(synthesizer(), voices[i:i + 1], codes[i:i + 1], seeds[i:i + 1], solve)
            assert relative(rows[i], single) < 1e-5


def test_vocoder_windows_are_the_vocoder_at_once():
    codes = codes_of(250)
    mel = token2wav.whole_mel(synthesizer(), [voice()], [codes], np.array([5], np.uint32))[:, :500]
    with torch.no_grad():
        wave = reference().code2wav_bigvgan_model(torch.tensor(np.asarray(mel)).transpose(1, 2)).numpy()
    assert relative(synthesize(codes, "whole"), wave) < 1e-5


def test_the_vocoder_is_compiled_for_few_shapes():
    """For a clip's first chunk, and for each number of blocks that are sounded together, however many were solved."""
    rows, before = 2, token2wav._vocode._cache_size()
    for blocks in (1, 2, 3, 4, 5, 8, 13, 19):
        codes = [codes_of(blocks * CONFIG.codes_per_block)] * rows
        token2wav.synthesize(synthesizer(), [voice()] * rows, codes, np.arange(rows, dtype=np.uint32))
    assert token2wav._vocode._cache_size() - before == 1 + len(set(SCHEDULE.sizes))


def test_seed_and_block_alone_fix_the_noise():
    draw = lambda seeds, *blocks: np.asarray(token2wav.block_noise(np.array(seeds, np.uint32), *blocks, (24, 3)))
    all_of = draw([4, 9], 0, 6)
    np.testing.assert_array_equal(draw([9], 3, 2)[0], all_of[1, 3:5])
    assert np.unique(all_of).size == all_of.size and abs(all_of.std() - 1) < 0.1


def test_calling_twice_changes_nothing():
    before = jax.tree.map(np.array, synthesizer().params)
    np.testing.assert_array_equal(synthesize(codes_of(60)), synthesize(codes_of(60)))
    jax.tree.map(np.testing.assert_array_equal, before, synthesizer().params)


@pytest.mark.parametrize("codes, told", [
    ([], "there are none"), ([[1]], "whole numbers"), ([0.5], "whole numbers"),
    ([3, 38], "38 at place 1 is outside 0..37"), ([-1, 99], "-1 at place 0 is outside 0..37 .and 1 more"),
])
def test_bad_codes(codes, told):
    with pytest.raises(OmniError, match=told):
        check_codes(codes, CONFIG.dit_config.codec_rows)


def test_bad_speakers_and_noise():
    other = Speaker(0, np.zeros((1, 5), np.float32), np.zeros((1, 9, 14), np.float32))
    with pytest.raises(OmniError, match="another model"):
        token2wav.encode_speaker(synthesizer(), other)
    with pytest.raises(OmniError, match="needs more than 4"):
        token2wav.encode_speaker(synthesizer(), speaker_of(0, 4))
    with pytest.raises(OmniError, match=r"noise: must be \[6, 14\] for 3 codes"):
        token2wav.check_noise(CONFIG, np.zeros((5, 14)), np.zeros(3, int))


@functools.cache
def on_one_device():
    return [token2wav.synthesize(synthesizer(), [voice(0), voice(1)], [codes_of(60), codes_of(37)],
                                 np.array([1, 2], np.uint32), solve) for solve in token2wav.SOLVES]


SPLITS = ("data=8", "fsdp=8", "model=8", "data=2,fsdp=2,model=2", "fsdp=2,model=4", "data=4,model=2")


@pytest.mark.slow  # whole replies are compared in tests/test_sharding.py, in the quick suite too
@pytest.mark.parametrize("mesh", SPLITS)
@pytest.mark.parametrize("scanned", [False, True], ids=["apart", "stacked"])
def test_every_mesh_split_gives_the_same_sound(mesh, scanned):
    split = synthesizer(mesh, scanned)
    voices = [token2wav.encode_speaker(split, speaker_of(seed)) for seed in (0, 1)]
    for solve, expected in zip(token2wav.SOLVES, on_one_device(), strict=True):
        rows = token2wav.synthesize(split, voices, [codes_of(60), codes_of(37)], np.array([1, 2], np.uint32), solve)
        for ours_, theirs in zip(rows, expected, strict=True):
            assert relative(ours_, theirs) < 1e-5
