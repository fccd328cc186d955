"""Spoken replies: the same by every road, whatever their length; and what can go wrong."""

import dataclasses
import gc
import itertools
import time

import jax
import numpy as np
import pytest

import omni_jax
from omni_jax import AudioChunk, OmniError, TextChunk
from omni_jax.config import OmniConfig
from omni_jax.data.buckets import token_bucket
from omni_jax.inference import generate, lockstep, steps, stream, token2wav
from omni_jax.inference.voices import Voices
from tests import tiny
from tests.inference.test_chat import joined
from tests.inference.test_generate import MIXED, TEXT, ask

HI = ask({"type": "text", "text": "Hi"})
SHORT = {"max_new_tokens": 6, "talker_max_new_tokens": 30}


def parts(chunks):
    """(text, token ids, codes, waveform) of a stream."""
    chunks = list(chunks)
    texts = [chunk for chunk in chunks if isinstance(chunk, TextChunk)]
    sounds = [chunk for chunk in chunks if isinstance(chunk, AudioChunk)]
    assert len(texts) + len(sounds) == len(chunks)
    for chunk in sounds:
        assert chunk.waveform.dtype == np.float32 and chunk.codes.dtype == np.int32 and chunk.codes.size
    return ("".join(chunk.text for chunk in texts), [token for chunk in texts for token in chunk.token_ids],
            np.concatenate([np.zeros(0, np.int32), *(chunk.codes for chunk in sounds)]),
            np.concatenate([np.zeros(0, np.float32), *(chunk.waveform for chunk in sounds)]))


@pytest.mark.parametrize("codes", [1, 11, 12, 13, 48, 61, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{"talker_temperature": 0}, {"seed": 3, "temperature": 0.8}], ids=str)
def test_streamed_equals_generated(talking, codes, options):
    options = {**options, "max_new_tokens": 7, "talker_max_new_tokens": codes}
    reply = talking.generate(HI, **options)
    text, tokens, spoken, waveform = parts(talking.stream(HI, **options))
    assert (text, tokens) == (reply.text, reply.token_ids) and 0 < len(spoken) <= codes
    np.testing.assert_array_equal(spoken, reply.codes)
    rate = talking.config.token2wav_config.samples_per_code
    assert reply.waveform.shape == waveform.shape == (len(spoken) * rate,) and reply.sample_rate == 24_000
    np.testing.assert_allclose(waveform, reply.waveform, atol=1e-5)
    assert np.abs(waveform).max() <= 1 and waveform.std() > 0
    np.testing.assert_allclose(talking.token2wav(spoken, seed=options.get("seed", 0)), waveform, atol=1e-5)


def test_a_cache_that_grows_while_speaking_changes_nothing(talking, monkeypatch):
    options = {"max_new_tokens": 7, "talker_max_new_tokens": 130, "seed": 4}
    expected = talking.generate(HI, **options).codes
    grown = []
    grow = steps.grow_cache
    monkeypatch.setattr(generate, "FIRST_CODES", 12)
    monkeypatch.setattr(generate, "SMALLEST_CACHE", 128)
    monkeypatch.setattr(steps, "grow_cache", lambda cache, slots: grown.append(slots) or grow(cache, slots=slots))
    np.testing.assert_array_equal(talking.generate(HI, **options).codes, expected)
    assert len(grown) > 2 and len(expected) == 130  # both caches after the prompt, and the Talker's while speaking


def test_short_prompts_share_what_speaks_their_replies(talking):
    """Each of its shapes takes long to compile, and tens of megabytes of a small model's process."""
    shapes = []
    for text in ("Hi", "long " * 8, "long " * 30):
        prompt = ask({"type": "text", "text": text})
        talking.generate(prompt, **SHORT)
        shapes.append((len(talking.prompt(prompt).token_ids), lockstep.speak._cache_size()))
    lengths, programs = zip(*shapes, strict=True)
    assert len({token_bucket(length) for length in lengths}) == 3 and len(set(programs)) == 1


def test_speech_ends_at_an_end(talking):
    free = talking.generate(HI, max_new_tokens=7, talker_max_new_tokens=60, talker_temperature=0).codes.tolist()
    end = next(code for code in reversed(free[:40]) if free.index(code) > 14)
    length = free.index(end)
    talker = dataclasses.replace(talking.voices.talker, ends=(end,))
    voices = Voices(talking.config, talker, talking.voices.synthesizer, talking.speakers, talking.voices.directory)
    ending = omni_jax.Omni(talking.config, talking.network, talking.processor, talking.sampling, voices)
    reply = ending.generate(HI, max_new_tokens=7, talker_max_new_tokens=60, talker_temperature=0)
    assert reply.codes.tolist() == free[:length]
    # A row that ends early leaves the others alone, and the other way round.
    options = {"max_new_tokens": 7, "talker_max_new_tokens": 60, "talker_temperature": 0}
    for own, row in zip((HI, MIXED, TEXT), ending.generate([HI, MIXED, TEXT], **options), strict=True):
        np.testing.assert_array_equal(row.codes, ending.generate(own, **options).codes)


@pytest.mark.parametrize("options", [{"talker_temperature": 0}, {"seed": [7, 8, 9], "temperature": 1.0}], ids=str)
def test_a_row_of_a_batch_equals_its_own_reply(talking, options):
    conversations = [TEXT, MIXED, HI]
    seeds = options.get("seed", [0, 0, 0])
    limits = {"max_new_tokens": 20, "talker_max_new_tokens": 50}
    batch = talking.generate(conversations, **{**options, **limits})
    for conversation, seed, row in zip(conversations, seeds, batch, strict=True):
        own = talking.generate(conversation, **{**options, **limits, "seed": seed})
        assert row.token_ids == own.token_ids
        np.testing.assert_array_equal(row.codes, own.codes)
        np.testing.assert_allclose(row.waveform, own.waveform, atol=1e-5)


def test_rows_whose_texts_end_at_different_times(talking):
    """A text of one token beside longer ones: it is silent, and the end of text comes to each row in its time."""
    free = [talking.generate(own, max_new_tokens=14, return_audio=False).token_ids for own in (HI, TEXT, MIXED)]
    end = next(token for token in free[1] if token not in free[2][:3] and free[1].index(token) > 3)
    network = dataclasses.replace(talking.network, ends=(end, free[0][0]))
    ending = omni_jax.Omni(talking.config, network, talking.processor, talking.sampling, talking.voices)
    options = {"max_new_tokens": 14, "talker_max_new_tokens": 40, "talker_temperature": 0}
    batch = ending.generate([HI, TEXT, MIXED], **options)
    assert len({len(row.token_ids) for row in batch}) > 1 and batch[0].token_ids == []
    assert batch[0].codes.size == batch[0].waveform.size == 0 and batch[1].codes.size
    for own, row in zip((HI, TEXT, MIXED), batch, strict=True):
        np.testing.assert_array_equal(row.codes, ending.generate(own, **options).codes)


def test_replies_of_one_token_are_silent(talking):
    reply = talking.generate(HI, max_new_tokens=1)
    assert len(reply.token_ids) == 1 and reply.codes.dtype == np.int32 and reply.codes.size == reply.waveform.size == 0
    assert not [chunk for chunk in talking.stream(HI, max_new_tokens=1) if isinstance(chunk, AudioChunk)]
    assert talking.generate(HI, max_new_tokens=2, talker_max_new_tokens=15).codes.size


def test_speech_leaves_the_text_alone(talking):
    silent = talking.generate(TEXT, max_new_tokens=30, return_audio=False, temperature=0.9, seed=5)
    assert silent.codes is None and silent.waveform is None
    for longest in (9, 50):  # the speech ends before the text, and after it
        spoken = talking.generate(TEXT, max_new_tokens=30, temperature=0.9, seed=5, talker_max_new_tokens=longest)
        assert spoken.token_ids == silent.token_ids and spoken.codes.size <= longest


def test_a_given_reply_is_spoken_as_the_models_own(talking):
    """Rows of unequal lengths beside each other; the settings of the text count for nothing."""
    options = {"talker_max_new_tokens": 12, "talker_temperature": 0, "speaker": ["Ethan", None]}
    pair = [HI, ask({"type": "text", "text": "Ho"})]
    long, short = (talking.generate(pair, max_new_tokens=n, **options) for n in (11, 5))
    given = [long[0].token_ids, short[1].token_ids]
    assert list(map(len, given)) == [11, 5]  # neither has drawn an end
    for expected, reply in zip((long[0], short[1]), talking.generate(pair, reply_ids=given, **options), strict=True):
        assert reply.token_ids == expected.token_ids and reply.text == expected.text
        np.testing.assert_array_equal(reply.codes, expected.codes)
    other = [*given[0][:2], (given[0][2] + 1) % 250, *given[0][3:], talking.network.ends[0]]
    reply, same = talking.generate(pair, reply_ids=[other, given[1]], max_new_tokens=2, **options)
    assert reply.token_ids == other[:-1] and reply.codes.tolist() != long[0].codes.tolist()
    np.testing.assert_array_equal(same.codes, short[1].codes)
    # Each row has a voice of its own, in the Talker and in Token2Wav.
    for row, name in enumerate(("Ethan", "Chelsie")):
        alike = talking.generate(pair, max_new_tokens=11, **options | {"speaker": name})
        np.testing.assert_array_equal(alike[row].codes, long[row].codes)
        np.testing.assert_allclose(alike[row].waveform, long[row].waveform, atol=1e-5)
        assert alike[1 - row].codes.tolist() != long[1 - row].codes.tolist()


@pytest.mark.parametrize("given, message", [
    ([[1], [2]], "must be 1 lists"), ([1, 2], "must be 1 lists"), ([[]], "none of them empty"), ("Hi", "must be 1"),
    ([[3, 487]], "a token of reply_ids is 487"), ([[1.5]], "1.5"), ([[1] * 33_000], "exceed the context"),
], ids=lambda value: str(value)[:20])
def test_replies_that_cannot_be_given(talking, given, message):
    with pytest.raises(OmniError, match=message):
        talking.generate(HI, reply_ids=given, talker_max_new_tokens=5)


def test_seeds_matter_and_repeat(talking):
    first, again, other = (talking.generate(HI, seed=seed, **SHORT) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.codes.tolist() != other.codes.tolist()
    sounds = [talking.token2wav(first.codes, seed=seed) for seed in (1, 2)]
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3


def test_speakers_differ(talking):
    assert list(talking.speakers) == ["Chelsie", "Ethan"]
    replies = [talking.generate(HI, speaker=name, talker_temperature=0, **SHORT) for name in (None, "Chelsie", "Ethan")]
    np.testing.assert_array_equal(replies[0].waveform, replies[1].waveform)
    assert replies[0].codes.tolist() != replies[2].codes.tolist()


def test_a_free_system_prompt_speaks(talking):
    reply = talking.generate([{"role": "system", "content": "Whisper."}, *HI], **SHORT)
    assert reply.codes.size and reply.waveform.size


def test_the_whole_clip_at_once(talking):
    reply = talking.generate(HI, solve="whole", talker_temperature=0, **SHORT)
    np.testing.assert_allclose(talking.token2wav(reply.codes, solve="whole"), reply.waveform, atol=1e-5)
    *_, codes, waveform = parts(talking.stream(HI, solve="whole", talker_temperature=0, **SHORT))
    np.testing.assert_array_equal(codes, reply.codes)
    np.testing.assert_allclose(waveform, reply.waveform, atol=1e-5)


def test_fewer_steps_of_the_solver(talking):
    """Streamed or given as codes they sound the same, and not as the reference's nine."""
    options = {"talker_temperature": 0, "solver_steps": 2, **SHORT}
    *_, codes, waveform = parts(talking.stream(HI, **options))
    np.testing.assert_allclose(talking.token2wav(codes, solver_steps=2), waveform, atol=1e-5)
    assert np.abs(talking.token2wav(codes) - waveform).max() > 1e-3
    with pytest.raises(OmniError, match=r"solver_steps is 2\.5; it must be a whole number 1 or more"):
        talking.token2wav(codes, solver_steps=2.5)


def test_noise_of_the_callers_own(talking):
    noise = np.random.default_rng(0).normal(size=(60, 80)).astype(np.float32)
    codes = np.arange(30) * 7
    assert np.abs(talking.token2wav(codes, noise=noise) - talking.token2wav(codes, noise=2 * noise)).max() > 1e-4
    with pytest.raises(OmniError, match=r"noise: must be \[60, 80\]"):
        talking.token2wav(codes, noise=noise[1:])


def test_sound_comes_while_the_talker_still_talks(talking):
    """The first sound leaves as soon as the schedule's codes are drawn, and text comes before it."""
    kinds = [type(chunk).__name__ for chunk in talking.stream(TEXT, max_new_tokens=90, talker_max_new_tokens=130)]
    assert kinds[0] == "TextChunk" and "TextChunk" in kinds[kinds.index("AudioChunk"):]
    assert kinds.count("AudioChunk") > 2


def test_timings_of_a_spoken_reply(talking):
    timings = talking.generate(HI, **SHORT).timings
    assert 0 < timings["prefill"] <= timings["first_token"] < timings["first_audio"] <= timings["total"]
    assert timings["lockstep"] > 0 and timings["token2wav"] > 0
    sound = timings["total"] / timings["real_time_factor"]
    for stage in ("prefill", "lockstep", "token2wav"):
        assert timings[f"real_time_factor_{stage}"] == pytest.approx(timings[stage] / sound)


@pytest.mark.parametrize("read", [0, 1, 3])
def test_an_interrupted_stream_frees_its_caches(talking, read):
    list(talking.stream(HI, max_new_tokens=90, talker_max_new_tokens=130))
    gc.collect()
    before = len(jax.live_arrays())
    chunks = talking.stream(HI, max_new_tokens=90, talker_max_new_tokens=130)
    for _ in range(read):
        next(chunks)
    assert len(jax.live_arrays()) > before
    chunks.close()
    gc.collect()
    assert len(jax.live_arrays()) <= before


def test_a_second_turn_equals_reading_everything(talking):
    options = {"max_new_tokens": 9, "talker_max_new_tokens": 25, "talker_temperature": 0}
    chat = talking.chat(**options)
    first, second = chat.send(MIXED[0]), chat.send("And then?")
    np.testing.assert_array_equal(first.codes, talking.generate(MIXED, **options).codes)
    next_ = talking.processor.next_prompt([{"role": "user", "content": "And then?"}])
    prompt, started = joined(talking.prompt(MIXED), first.token_ids, next_), time.perf_counter()
    request = talking.request(chat.options, np.zeros(1, np.uint32))
    whole, = talking.finish(talking.begin([prompt], request, started), request, started)
    assert second.token_ids == whole.token_ids
    np.testing.assert_array_equal(second.codes, whole.codes)


def test_streamed_turns_equal_sent_ones(talking):
    sent, streamed = (talking.chat(max_new_tokens=8, talker_max_new_tokens=20, seed=5) for _ in range(2))
    for text in ("One.", "Two, which is somewhat longer.", "Three?"):
        reply = sent.send(text)
        said, _, codes, waveform = parts(streamed.stream(text))
        assert said == reply.text
        np.testing.assert_array_equal(codes, reply.codes)
        np.testing.assert_allclose(waveform, reply.waveform, atol=1e-5)
    assert sent.messages == streamed.messages


def test_a_turn_left_early_ends_with_what_was_read(talking):
    chat = talking.chat(max_new_tokens=60, talker_max_new_tokens=90, talker_temperature=0)
    pieces = chat.stream("Tell me more.")
    heard = [next(pieces), next(pieces)]
    pieces.close()
    assert chat.messages[-1]["content"].startswith("".join(piece.text for piece in heard))
    assert chat.send("Go on.").codes.size


SPEAKER = "speaker .* is unknown; this checkpoint has Chelsie, Ethan$"
NOWHERE = ask({"type": "image", "image": "nowhere.png"})


@pytest.mark.parametrize("options, message", [
    ({"speaker": "Nobody"}, SPEAKER), ({"speaker": 3}, SPEAKER), ({"speaker": ""}, SPEAKER),
    ({"speaker": ["Ethan"] * 2}, "speaker has 2 names for 1 conversations"), ({"speaker": [5]}, SPEAKER),
    ({"solve": "quick"}, "solve is 'quick'; it must be one of block, whole"),
    ({"solver_steps": 0}, "solver_steps is 0; it must be a whole number 1 or more"),
    ({"talker_temperature": -1}, "talker_temperature is -1"), ({"talker_top_k": 2.5}, "talker_top_k is 2.5"),
    ({"talker_top_p": 0}, "talker_top_p is 0"), ({"talker_repetition_penalty": "x"}, "talker_repetition_penalty is"),
    ({"talker_max_new_tokens": 0}, "talker_max_new_tokens is 0"),
], ids=str)
def test_bad_options_are_told_before_media_are_read(talking, options, message):
    for call in (talking.generate, talking.stream, lambda _, **o: talking.chat(**o)):
        with pytest.raises(OmniError, match=message):
            call(NOWHERE, **options)


@pytest.mark.parametrize("codes, message", [([], "there are none"), ([1, 301], "301 at place 1 is outside 0..300"),
                                            ([-1], "-1 at place 0"), ([1.5], "whole numbers")], ids=str)
def test_bad_codes(talking, codes, message):
    with pytest.raises(OmniError, match=message):
        talking.token2wav(codes)


def test_a_checkpoint_without_a_talker(omni):
    assert omni.generate(HI, max_new_tokens=2).codes is None and not omni.speakers
    for call in (lambda: omni.generate(HI, return_audio=True), lambda: omni.stream(HI, speaker="Ethan"),
                 lambda: omni.token2wav([1])):
        with pytest.raises(OmniError, match="has no Talker and Token2Wav"):
            call()


def test_loaded_without_speech_nothing_of_it_is_read(talking_7b, talking, monkeypatch):
    monkeypatch.setattr(token2wav, "prepare", lambda *_: pytest.fail("Token2Wav was prepared"))
    silent = omni_jax.load(talking_7b, mesh="", speech=False)
    assert silent.generate(HI, max_new_tokens=6).token_ids == talking.generate(HI, **SHORT).token_ids
    with pytest.raises(OmniError, match="loaded with speech=False"):
        silent.generate(HI, return_audio=True)


def test_a_checkpoint_that_lost_its_speakers(talking):
    voices = Voices(talking.config, talking.voices.talker, talking.voices.synthesizer, {}, talking.voices.directory)
    lost = omni_jax.Omni(talking.config, talking.network, talking.processor, talking.sampling, voices)
    for call in (lost.generate, lost.stream):
        with pytest.raises(OmniError, match=r"has no speakers .*; add them with tools\.speakers, or give return_audio"):
            call(NOWHERE)
    assert lost.generate(HI, max_new_tokens=2, return_audio=False).token_ids


def test_ids_that_are_no_sounds_are_never_drawn(talking):
    rows = talking.config.token2wav_config.dit_config.codec_rows
    speaking = talking.request(omni_jax.inference.replies.Options(), np.zeros(1, np.uint32)).speaking
    talker = OmniConfig.from_json(tiny.config("7b", speech=True)).talker_config
    allowed = np.flatnonzero(~speaking.never)
    assert allowed.tolist() == [*range(rows), talker.tts_codec_pad_token_id, talker.tts_codec_end_token_id]
    reply = talking.generate(HI, max_new_tokens=5, talker_max_new_tokens=200, talker_temperature=50.0,
                             talker_top_k=0, talker_top_p=1.0)
    assert reply.codes.size and reply.codes.max() < rows


def launched(talking, monkeypatch, every):
    """(tokens, codes, steps) of each launch of one reply that is to show its text so often."""
    monkeypatch.setattr(stream, "TEXT_EVERY", every)
    codes = []
    push = lambda new, ended: codes.append(new[0].tolist()) or []
    request = talking.request(omni_jax.inference.replies.Options(max_new_tokens=20, talker_max_new_tokens=40),
                              np.zeros(1, np.uint32))
    session = talking.begin([talking.prompt(HI)], request, time.perf_counter())
    tokens = [event.tokens[0].tolist() for event in stream.events(talking.network, session, push)]
    return tokens, codes


def test_launches_are_blocks_of_codes_or_as_small_as_the_text_wants(talking, monkeypatch):
    quick, slow = launched(talking, monkeypatch, 1e9), launched(talking, monkeypatch, 0.0)
    # The first launch is of one code, to be timed; none goes over the end of a block.
    assert list(map(len, quick[1])) == [1, 11, 12, 12, 4] and list(map(len, quick[0])) == [1, 1, 11, 7, 0, 0]
    # Token by token, until the text has ended.
    assert list(map(len, slow[1])) == [1] * 19 + [5, 12, 4] and list(map(len, slow[0])) == [1] * 20 + [0] * 3
    for one, other in zip(quick, slow, strict=True):
        assert list(itertools.chain(*one)) == list(itertools.chain(*other))


def test_the_first_sound_comes_after_the_same_work_however_long_the_reply(talking, monkeypatch):
    drawn, speak = [], stream.speak
    monkeypatch.setattr(stream, "speak", lambda network, session, limit: drawn.append(limit) or speak(network, session,
                                                                                                      limit))
    firsts = []
    for longest in (60, 400):
        drawn.clear()
        chunks = talking.stream(HI, max_new_tokens=8, talker_max_new_tokens=longest, talker_temperature=0)
        firsts.append((next(chunk for chunk in chunks if isinstance(chunk, AudioChunk)), max(drawn)))
        chunks.close()
    (short, after), (long, after_long) = firsts
    assert after == after_long == 48  # 36 codes, and the block that the device draws meanwhile
    np.testing.assert_array_equal(short.codes, long.codes)
    np.testing.assert_array_equal(short.waveform, long.waveform)
