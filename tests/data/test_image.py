import io

import numpy as np
import pytest
from PIL import Image

from omni_jax.config import PIXEL_MEAN, PIXEL_STD
from omni_jax.data.image import frame_pairs, load_image, smart_resize
from omni_jax.errors import OmniError
from tests.data.media_files import one_sentence, tone

SIZES = [(1, 1), (1, 150), (27, 29), (28, 28), (43, 41), (55, 300), (97, 640), (333, 221), (14, 2800), (500, 3)]


@pytest.fixture(scope="module")
def reference():
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    return module.Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 784, "longest_edge": 16384 * 784})


def picture(rng, height, width, mode="RGB"):
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return noise.convert("RGB").convert(mode) if mode == "P" else noise.convert(mode)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_and_grid_equal_the_reference(reference, rng, size):
    image = picture(rng, *size)
    if min(size) < 15:  # its own resize drops a side to nothing; qwen-omni-utils, which resizes before it, does not
        image = Image.fromarray(load_image(image))
    expected = reference(image, return_tensors="np")
    patches = frame_pairs(load_image(image)[None])
    _, rows, cols = expected["image_grid_thw"][0]
    assert patches.shape == (1, rows * cols // 4, 4, 1176) and patches.dtype == np.uint8
    colours = patches.reshape(-1, 3, 392).astype(np.float32) / 255
    ours = (colours - np.array(PIXEL_MEAN, np.float32)[:, None]) / np.array(PIXEL_STD, np.float32)[:, None]
    np.testing.assert_allclose(ours.reshape(-1, 1176), expected["pixel_values"], atol=2e-6)


@pytest.mark.parametrize("limits", [{}, {"min_pixels": 50_000}, {"max_pixels": 20_000},
                                    {"min_pixels": 10_000, "max_pixels": 12_000}])
def test_sizes_equal_the_reference(limits):
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    full = {"min_pixels": 4 * 784, "max_pixels": 16384 * 784, **limits}
    rng = np.random.default_rng(1)
    for height, width in rng.integers(15, 3000, (3000, 2)).tolist():
        if max(height, width) / min(height, width) <= 200:
            assert smart_resize(height, width, 28, **limits) == module.smart_resize(height, width, 28, **full)


def test_sizes_scale_with_the_factor():
    assert smart_resize(1, 1) == (56, 56) and smart_resize(1, 1, 8) == (16, 16)
    assert smart_resize(40_000, 40_000, 8) == (1024, 1024)


def test_item_settings(rng):
    image = picture(rng, 100, 200)
    assert load_image(image, {"resized_height": 60, "resized_width": 90}).shape == (56, 84, 3)
    assert load_image(image, {"max_pixels": 4 * 784}).shape == (28, 56, 3)
    assert load_image(image, {"min_pixels": 100 * 784}).shape == (224, 420, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK", "YCbCr"])
def test_modes(rng, mode):
    """White under transparency; otherwise what PIL's conversion gives."""
    image = picture(rng, 56, 84, mode)
    if mode in ("RGBA", "LA"):
        rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
        expected = rgba[..., :3] * rgba[..., 3:] / 255 + 255 - rgba[..., 3:]
    else:
        expected = np.asarray(image.convert("RGB"))
    assert np.abs(load_image(image) - expected).max() <= 1


def test_transparent_palette_and_sixteen_bits(tmp_path):
    palette = Image.new("P", (56, 56), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "p.png", transparency=0)
    assert (load_image(tmp_path / "p.png") == 255).all()
    Image.fromarray(np.full((56, 56), 0x80FF, np.uint16)).save(tmp_path / "16.png")
    assert (load_image(tmp_path / "16.png") == 0x80).all()


def test_sources_agree_and_orientation_is_ignored(tmp_path, rng):
    image = picture(rng, 56, 84)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a b.png"
    image.save(path, exif=exif)
    expected = np.asarray(image)
    encoded = path.read_bytes()
    for source in (path, str(path), path.as_uri(), f"file://{path}", encoded, io.BytesIO(encoded), image, expected):
        np.testing.assert_array_equal(load_image(source), expected)
    gray = expected[..., 0]
    np.testing.assert_array_equal(load_image(gray), np.repeat(gray[..., None], 3, axis=2))


def test_frame_pairs_of_a_video_and_of_an_odd_number(rng):
    frames = rng.integers(0, 256, (3, 12, 18, 3), dtype=np.uint8)
    patches = frame_pairs(frames, patch=3, merge=2)
    assert patches.shape == (2, 6, 4, 54)
    # frame pair 0, cell (1, 2), patch (0, 1) of it, channel 2, second frame, pixel (2, 0)
    assert patches[0, 1 * 3 + 2, 1].reshape(3, 2, 3, 3)[2, 1, 2, 0] == frames[1, 6 + 2, 12 + 3, 2]
    still = patches[1].reshape(6, 4, 3, 2, 9)
    np.testing.assert_array_equal(still[..., 0, :], still[..., 1, :])


@pytest.mark.parametrize(("name", "content", "word"), [
    ("missing.png", None, "no such file"), ("empty.png", b"", "empty"), ("text.png", b"hello " * 50, "picture"),
    ("sound.png", tone(0.1).tobytes(), "picture"), ("cut.png", "cut", "truncated"), ("wide.png", "wide", "200 times")])
def test_bad_files(tmp_path, rng, name, content, word):
    path = tmp_path / name
    if content == "cut":
        picture(rng, 90, 90).save(path)
        content = path.read_bytes()[:9000]
    if content == "wide":
        Image.new("RGB", (20_000, 4)).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(OmniError) as error:
        load_image(path)
    one_sentence(error, path, word)


@pytest.mark.parametrize("source", [
    np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((3, 4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8),
    {"a": 1}, 5, Image.new("RGB", (0, 4))])
def test_bad_arrays(source):
    with pytest.raises(OmniError) as error:
        load_image(source, where="message 2, item 0")
    one_sentence(error, "message 2, item 0")


@pytest.mark.parametrize("item", [{"min_pixels": 0}, {"max_pixels": "x"}, {"min_pixels": 9000, "max_pixels": 4000},
                                  {"resized_height": -3, "resized_width": 5}, {"max_pixels": float("nan")}])
def test_bad_settings(item):
    with pytest.raises(OmniError) as error:
        load_image(Image.new("RGB", (30, 30)), item, where="message 2, item 0")
    one_sentence(error, "message 2, item 0")
