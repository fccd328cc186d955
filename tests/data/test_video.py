from fractions import Fraction

import numpy as np
import pytest
import soundfile
from PIL import Image

from omni_jax.data import video
from omni_jax.data.video import frame_size, linspace, load_video, plan_video, smart_nframes
from omni_jax.errors import OmniError
from tests.data.media_files import colour, index_of, one_sentence, tone, write_video

SMALL = {"resized_height": 56, "resized_width": 84}


def chosen(path, item=None):
    frames, plan = load_video(path, {**SMALL, **(item or {})})
    assert frames.dtype == np.uint8 and frames.shape == (len(plan.indices), 56, 84, 3)
    return [index_of(frame) for frame in frames], plan


@pytest.mark.parametrize(("suffix", "codec", "fps", "frames"), [
    ("mp4", "mpeg4", Fraction(25), 60), ("mp4", "libx264", Fraction(30000, 1001), 95),
    ("mkv", "ffv1", Fraction(25, 2), 40), ("mkv", "libx264", Fraction(30000, 1001), 77),
    ("avi", "mpeg4", Fraction(24), 51), ("webm", "libvpx", Fraction(15), 37),
    ("webm", "libvpx-vp9", Fraction(24000, 1001), 31), ("ts", "mpeg2video", Fraction(25), 33),
    ("mp4", "libx264", Fraction(60), 3), ("mov", "mpeg4", Fraction(1), 9)])
def test_frames_and_rate_in_any_container(tmp_path, suffix, codec, fps, frames):
    path = write_video(tmp_path / f"film.{suffix}", frames, fps, codec=codec)
    if frames == 3:
        indices, plan = chosen(path, {"min_frames": 2})
    else:
        indices, plan = chosen(path)
    n = min(max(frames / float(fps) * 2, 4), frames) // 2 * 2
    assert plan.total == frames and plan.fps == pytest.approx(float(fps), rel=1e-6)
    assert indices == np.rint(np.linspace(0, frames - 1, int(n))).tolist() == plan.indices.tolist()
    assert plan.sampled_fps == pytest.approx(n / frames * float(fps), rel=1e-6)
    assert plan.seconds == pytest.approx(frames / float(fps), rel=1e-6)


def test_variable_frame_rate(tmp_path):
    """Ten frames in the first 0.4 s, ten in the next 4 s: frames are chosen by number, the rate is the mean."""
    times = [40 * i for i in range(10)] + [400 + 400 * i for i in range(10)]
    path = write_video(tmp_path / "vfr.mkv", 20, Fraction(25), times=times, codec="libx264")
    indices, plan = chosen(path, {"nframes": 6})
    assert plan.total == 20 and plan.fps == pytest.approx(19 / 4.0, rel=1e-3)
    assert indices == [0, 4, 8, 11, 15, 19]


def test_bytes_and_urls(tmp_path):
    path = write_video(tmp_path / "film.mp4", 30)
    expected, _ = load_video(path, SMALL)
    for source in (f"file://{path}", (tmp_path / "film.mp4").read_bytes(), tmp_path / "film.mp4"):
        np.testing.assert_array_equal(load_video(source, SMALL)[0], expected)


def test_item_fields(tmp_path):
    path = write_video(tmp_path / "film.mp4", 50, Fraction(10))
    assert chosen(path, {"nframes": 5})[0] == [0, 16, 33, 49]  # 5 / 2 rounds to 2 pairs
    assert chosen(path, {"fps": 1, "min_frames": 6})[0] == [0, 10, 20, 29, 39, 49]
    assert len(chosen(path, {"fps": 100, "max_frames": 9})[0]) == 8
    indices, plan = chosen(path, {"video_start": 1.05, "video_end": 3.0})
    assert (indices[0], indices[-1], plan.total) == (11, 30, 20) and plan.sampled_fps == 2.0
    assert chosen(path, {"video_start": 4.0, "video_end": 100, "nframes": 4})[0] == [40, 43, 46, 49]
    assert chosen(path, {"fps": 0.5})[1].sampled_fps == pytest.approx(4 / 50 * 10)


def test_numbers_of_frames():
    for total, fps, item, n in ((1000, 25, {}, 80), (25, 25, {}, 4), (100_000, 25, {}, 768), (7, 1, {"fps": 9}, 6),
                                (100_000, 25, {"max_frames": 100}, 100), (100, 25, {"min_frames": 19}, 20),
                                (101, 29.97, {"fps": 3.3}, 10), (40, 30, {"nframes": 39}, 40)):
        assert smart_nframes(item, total, fps, "film") == n


def test_linspace_equals_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for total in rng.integers(2, 200_000, 2000).tolist():
        start, n = int(rng.integers(0, 1000)), 2 * int(rng.integers(1, 1 + min(total, 768) // 2))
        expected = torch.linspace(start, start + total - 1, n).round().long().numpy()
        np.testing.assert_array_equal(linspace(start, start + total - 1, n), expected)


def test_frame_sizes():
    """The whole video's limit is shared out among the frames, the limits of one frame hold as well."""
    assert frame_size({}, 4, 1080, 1920, 28, "film") == (560, 1008)
    assert frame_size({}, 768, 1080, 1920, 28, "film") == (336, 644)
    assert frame_size({}, 4, 10, 21, 28, "film") == (224, 476)
    assert frame_size({"max_pixels": 50 * 784, "min_pixels": 784}, 4, 1080, 1920, 28, "film") == (140, 252)
    assert frame_size({"total_pixels": 1000 * 784}, 100, 1080, 1920, 28, "film") == (224, 420)
    assert frame_size({}, 4, 1080, 1920, 8, "film") == (160, 288)


@pytest.mark.parametrize("n", [2, 5])
def test_lists_of_frames(tmp_path, n):
    frames = [np.broadcast_to(colour(i), (60, 80, 3)) for i in range(n)]
    files = [tmp_path / f"{i}.png" for i in range(n)]
    for path, frame in zip(files, frames, strict=True):
        Image.fromarray(np.ascontiguousarray(frame)).save(path)
    for source in (frames, files, [Image.open(path) for path in files], np.stack(frames)):
        pixels, plan = load_video(source)
        assert [index_of(frame) for frame in pixels] == [*range(n), *[n - 1] * (n % 2)]
        assert pixels.shape[1:] == (56, 84, 3) and plan.sampled_fps == 2.0 and not plan.has_sound
    assert load_video(frames, {"fps": 0.5})[1].sampled_fps == 0.5


def test_counting_by_decoding_equals_counting_packets(tmp_path, monkeypatch):
    """Where packets may show nothing (VP8's alternate references) frames are decoded to count them."""
    path = write_video(tmp_path / "film.mp4", 60, codec="libx264")  # with frames out of order
    by_packets = plan_video(path, SMALL)
    monkeypatch.setattr(video, "HIDDEN_FRAME_CODECS", ("",))
    by_decoding = plan_video(path, SMALL)
    assert by_decoding.total == by_packets.total == 60 and by_decoding.fps == by_packets.fps


def test_a_frame_lost_at_the_end_is_tolerated(tmp_path, monkeypatch):
    path = write_video(tmp_path / "film.mp4", 30)
    plan = plan_video(path, SMALL)
    late = video.dataclasses.replace(plan, indices=np.array([0, 31]))
    assert [index_of(f) for f in video.read_frames(late)] == [0, 0]
    with pytest.raises(OmniError) as error:
        list(video.read_frames(video.dataclasses.replace(plan, indices=np.array([0, 90]))))
    one_sentence(error, path, "30 frames")


def test_a_file_that_breaks_off(tmp_path):
    """An MP4 whose table comes first opens well, but its frames end early."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_video(whole, 60, options={"movflags": "faststart"})
    cut.write_bytes(whole.read_bytes()[: -whole.stat().st_size // 8])
    for source, name in ((cut, cut), (cut.read_bytes(), "message 0")):
        with pytest.raises(OmniError) as error:
            load_video(source, where="message 0, item 0")
        one_sentence(error, name, "end of its video is missing")
    load_video(whole.read_bytes(), SMALL)


def _write(path):
    name = path.name
    if name == "text.mp4":
        path.write_text("not a film\n" * 60)
    elif name == "sound.mp4":
        soundfile.write(path, tone(0.5), 16000, format="WAV")
    elif name == "picture.mp4":
        Image.new("RGB", (30, 30)).save(path, "PNG")
    elif name == "single.mp4":
        write_video(path, 1)
    elif name == "cut.mp4":
        write_video(path, 20)
        path.write_bytes(path.read_bytes()[:2000])
    elif name == "empty.mp4":
        path.write_bytes(b"")
    elif name == "noise.mp4":
        path.write_bytes(np.random.default_rng(3).bytes(4000))


@pytest.mark.parametrize(("name", "word"), [
    ("text.mp4", "video"), ("sound.mp4", "no pictures"), ("picture.mp4", "picture"), ("single.mp4", "at least 2"),
    ("cut.mp4", "corrupt"), ("empty.mp4", "empty"), ("noise.mp4", "corrupt"), ("missing.mp4", "no such file")])
def test_bad_files(tmp_path, name, word):
    _write(tmp_path / name)
    with pytest.raises(OmniError) as error:
        load_video(tmp_path / name)
    one_sentence(error, tmp_path / name, word)


@pytest.mark.parametrize("item", [
    {"fps": 2, "nframes": 4}, {"fps": 0}, {"fps": "x"}, {"nframes": 600}, {"nframes": 1}, {"min_frames": -1},
    {"video_start": 9}, {"video_start": 0.5, "video_end": 0.52}, {"video_start": 1, "video_end": 0.5},
    {"total_pixels": 0}, {"max_frames": 1}])
def test_bad_settings(tmp_path, item):
    path = write_video(tmp_path / "film.mp4", 30)
    with pytest.raises(OmniError) as error:
        load_video(path, item, where=path)
    one_sentence(error, path)


@pytest.mark.parametrize("source", [
    [], [np.zeros((40, 40, 3), np.uint8)], [np.zeros((40, 40, 3), np.uint8), np.zeros((90, 40, 3), np.uint8)],
    ["missing.png", "missing.png"], 7, {"a": 1}, [1, 2]])
def test_bad_lists(source):
    with pytest.raises(OmniError) as error:
        load_video(source, where="message 0, item 1")
    one_sentence(error, "missing.png" if "missing.png" in str(source) else "item 1")
