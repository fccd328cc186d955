import base64
import io

import av
import librosa
import numpy as np
import pytest
import soundfile
from PIL import Image

from omni_jax.data import audio
from omni_jax.data.audio import audio_tokens, load_audio, log_mel, mel_frames
from omni_jax.errors import OmniError
from tests.data.media_files import RATE, one_sentence, tone, write_video


@pytest.fixture(scope="module")
def extractor():
    transformers = pytest.importorskip("transformers")
    return transformers.WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16000, hop_length=160, chunk_length=300, n_fft=400, padding_value=0.0,
        return_attention_mask=True)


def test_log_mel_equals_the_reference(extractor):
    """All frames, the last ones included, for lengths around the hop, the window and the piece."""
    for samples in (321, 399, 400, 480, 481, 639, 640, 16000, 16001, 16159, 40007):
        wave = tone(samples / RATE + 1, seed=samples)[:samples]
        wave[-150:] *= 1.5  # the loudest part at the end: frames beyond the last one count for the maximum
        expected = extractor(wave, sampling_rate=16000, return_attention_mask=True)
        frames = int(expected["attention_mask"].sum())
        mel = log_mel(wave)
        assert mel.shape == (frames, 128) and mel.dtype == np.float32 and frames == mel_frames(samples)
        np.testing.assert_allclose(mel, expected["input_features"][0].T[:frames], atol=1e-4)


@pytest.mark.parametrize("wave", [np.zeros(5000, np.float32), 1e-4 * tone(1), np.sign(tone(1))])
def test_log_mel_of_silence_whisper_and_clipping(extractor, wave):
    expected = extractor(wave.astype(np.float32), sampling_rate=16000)["input_features"][0].T
    np.testing.assert_allclose(log_mel(wave.astype(np.float32)), expected[: mel_frames(wave.size)], atol=1e-4)


def test_log_mel_in_pieces_is_the_same(monkeypatch):
    wave = tone(3.21)
    whole = log_mel(wave)
    monkeypatch.setattr(audio, "PIECE", 37)
    np.testing.assert_array_equal(log_mel(wave), whole)


def test_log_mel_is_not_cut_at_300_s():
    assert log_mel(np.zeros(301 * RATE, np.float32), 8).shape == (30100, 8)


def test_mel_filters_equal_the_reference(extractor):
    np.testing.assert_allclose(audio._mel_filters(128), extractor.mel_filters, atol=1e-7)


def test_audio_tokens():
    for frames in range(3, 1000):
        assert audio_tokens(frames) == ((frames - 1) // 2 + 1 - 2) // 2 + 1
    assert [audio_tokens(n) for n in (1, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(("rate", "channels", "suffix", "subtype"), [
    (16000, 1, "wav", "PCM_16"), (44100, 2, "wav", "PCM_16"), (8000, 1, "wav", "PCM_U8"), (22050, 3, "wav", "PCM_24"),
    (48000, 2, "flac", "PCM_24"), (11025, 1, "wav", "FLOAT"), (96000, 2, "wav", "DOUBLE"), (8000, 1, "wav", "ULAW"),
    (44100, 6, "flac", "PCM_16"), (32000, 2, "wav", "PCM_32")])
def test_files_equal_librosa(tmp_path, rate, channels, suffix, subtype):
    path = tmp_path / f"sound.{suffix}"
    wave = np.stack([tone(0.73, rate, seed=i) / (i + 1) for i in range(channels)], axis=1)
    soundfile.write(path, wave, rate, subtype=subtype)
    expected = librosa.load(path, sr=16000)[0]
    for source in (path, str(path), path.as_uri(), path.read_bytes(), io.BytesIO(path.read_bytes()),
                   "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode()):
        got = load_audio(source)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=2e-7)


def test_a_stretch_equals_librosa(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2, 44100), 44100)
    expected = librosa.load(tmp_path / "a.wav", sr=16000, offset=0.5, duration=0.75)[0]
    got = load_audio(tmp_path / "a.wav", {"audio_start": 0.5, "audio_end": 1.25})
    np.testing.assert_allclose(got, expected, atol=2e-7)


@pytest.mark.parametrize(("suffix", "codec", "rate"), [
    ("mp3", "libmp3lame", 44100), ("m4a", "aac", 48000), ("ogg", "libopus", 48000), ("mkv", "flac", 32000)])
def test_other_codecs_sound_alike(tmp_path, suffix, codec, rate):
    path, wave = tmp_path / f"sound.{suffix}", tone(2, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 192000
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    got, expected = load_audio(path), librosa.resample(wave, orig_sr=rate, target_sr=16000)
    assert abs(len(got) - len(expected)) < 3000
    spectra = [np.abs(np.fft.rfft(x[4000:20000])) for x in (got, expected)]
    np.testing.assert_allclose(spectra[0][[330, 2500]], spectra[1][[330, 2500]], rtol=0.1)


def test_sound_track_of_a_video(tmp_path):
    path = write_video(tmp_path / "film.mp4", sound=tone(1.2))
    got = load_audio(path)
    assert abs(len(got) / RATE - 1.2) < 0.15 and np.abs(got).max() > 0.5


def test_arrays():
    wave = tone(0.5)
    np.testing.assert_array_equal(load_audio(wave), wave)
    np.testing.assert_array_equal(load_audio(wave.astype(np.float64)), wave)
    np.testing.assert_allclose(load_audio((wave * 32767).astype(np.int16)), wave, atol=1e-4)
    stereo = np.stack([wave, -wave / 2])
    np.testing.assert_allclose(load_audio(stereo), wave / 4, atol=1e-7)
    np.testing.assert_allclose(load_audio(stereo.T), wave / 4, atol=1e-7)
    slow = tone(0.5, 8000)
    np.testing.assert_array_equal(load_audio(slow, {"sampling_rate": 8000}),
                                  librosa.resample(slow, orig_sr=8000, target_sr=16000))


def test_bad_arrays():
    for bad, word in (([np.nan] * 900, "finite"), ([], "shape"), (np.zeros((2, 3, 4)), "shape"), (7j, "array"),
                      (np.zeros(320, np.float32), "too short"), (np.array(["a"]), "array"), (np.array(3.0), "shape")):
        with pytest.raises(OmniError) as error:
            load_audio(bad, where="message 3, item 1")
        one_sentence(error, "message 3, item 1", word)
    for item in ({"sampling_rate": 0}, {"sampling_rate": 0.5}, {"sampling_rate": "x"}, {"audio_start": "x"},
                 {"audio_start": 2, "audio_end": 1}, {"audio_start": 5}):
        with pytest.raises(OmniError) as error:
            load_audio(tone(1), item, "message 0, item 0")
        one_sentence(error, "message 0, item 0")


def test_tags_at_the_end_of_an_mp3_are_no_error(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(1), RATE)
    (tmp_path / "b.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + b"TAG" + b"junk " * 60)
    np.testing.assert_array_equal(load_audio(tmp_path / "b.mp3"), load_audio(tmp_path / "a.mp3"))


def _write(name):
    def make(path):
        if name in ("short.wav", "none.wav"):
            soundfile.write(path, np.zeros(320 if name == "short.wav" else 0), RATE)
        elif name == "picture.wav":
            Image.new("RGB", (40, 30)).save(path, "PNG")
        elif name == "silent.mp4":
            write_video(path, frames=4)
        elif name == "text.mp3":
            path.write_text("this is not sound\n" * 40)
        elif name == "noise.flac":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        elif name == "nan.wav":
            soundfile.write(path, np.full(2000, np.nan, np.float32), RATE, subtype="FLOAT")
        elif name == "empty.wav":
            path.write_bytes(b"")
        elif name == "folder.wav":
            path.mkdir()
    return make


@pytest.mark.parametrize(("name", "word"), [
    ("short.wav", "too short"), ("none.wav", "no sound"), ("picture.wav", "no sound track"),
    ("silent.mp4", "no sound track"), ("text.mp3", "cannot be read"), ("noise.flac", "corrupt"),
    ("nan.wav", "finite"), ("empty.wav", "empty"), ("missing.wav", "no such file"), ("folder.wav", "directory")])
def test_bad_files(tmp_path, name, word):
    _write(name)(tmp_path / name)
    with pytest.raises(OmniError) as error:
        load_audio(tmp_path / name)
    one_sentence(error, tmp_path / name, word)


def test_sound_that_breaks_off_is_not_cut_silently(tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_video(whole, 20, sound=tone(3), options={"movflags": "faststart"})
    load_audio(whole)
    cut.write_bytes(whole.read_bytes()[: -whole.stat().st_size // 8])
    with pytest.raises(OmniError) as error:
        load_audio(cut)
    one_sentence(error, cut, "end of its audio is missing")


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.m4a"
    write_video(path.with_suffix(".mp4"), frames=4, sound=tone(1))
    path.write_bytes(path.with_suffix(".mp4").read_bytes()[:3000])  # the index at the end is gone
    with pytest.raises(OmniError) as error:
        load_audio(path)
    one_sentence(error, path)


@pytest.mark.parametrize("url", ["http://x.org/a.wav", "https://x.org/a", "data:audio/wav;base64,%%%", "data:nothing"])
def test_bad_urls(url):
    with pytest.raises(OmniError) as error:
        load_audio(url, where="message 0, item 0")
    one_sentence(error)
