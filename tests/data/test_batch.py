import numpy as np
import pytest
from PIL import Image

from omni_jax.data.batch import collate
from omni_jax.data.buckets import power_of_two
from omni_jax.errors import OmniError
from tests.data.media_files import one_sentence, tone


@pytest.fixture(scope="module")
def prompts(processor):
    rng = np.random.default_rng(3)

    def image(height, width):
        return {"type": "image", "image": Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))}

    def video(frames, height, width):
        return {"type": "video", "video": list(rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8))}

    contents = [
        [image(30, 90), {"type": "audio", "audio": tone(3.1)}, video(7, 40, 24), image(8, 8)],
        [{"type": "text", "text": "only text"}],
        [video(10, 33, 70), {"type": "audio", "audio": tone(4.01)}, {"type": "audio", "audio": tone(0.5)}],
    ]
    return [processor.prompt([{"role": "user", "content": content}]) for content in contents]


@pytest.fixture(scope="module", params=[(16_384, 64), (300, 2)])
def limits(request):
    return dict(zip(("max_patches", "max_blocks"), request.param, strict=True))


@pytest.fixture(scope="module")
def batch(prompts, processor, limits):
    return collate(prompts, processor.config, **limits)


def test_tokens_are_padded_on_the_right(batch, prompts, processor):
    assert batch.token_ids.dtype == batch.lengths.dtype == np.int32
    assert batch.token_ids.shape[1] in (32, 64, 128, 256, 512) and batch.lengths.tolist() == [
        len(p.token_ids) for p in prompts]
    for row, prompt in zip(batch.token_ids, prompts, strict=True):
        assert row[: len(prompt.token_ids)].tolist() == prompt.token_ids.tolist()
        assert (row[len(prompt.token_ids) :] == processor.config.thinker_config.pad_token_id).all()


def test_every_media_token_is_filled_exactly_once(batch, processor):
    ids = processor.config.thinker_config
    for groups, tokens in ((batch.audio, [ids.audio_token_index]),
                           (batch.vision, [ids.image_token_index, ids.video_token_index])):
        filled = np.concatenate([group.destination.ravel() for group in groups])
        assert filled.dtype == np.int32 and filled.max() == batch.token_ids.size
        filled = np.sort(filled[filled < batch.token_ids.size])
        np.testing.assert_array_equal(filled, np.flatnonzero(np.isin(batch.token_ids, tokens)))


def test_unpacking_the_bins_gives_the_patches_back(batch, prompts):
    width = batch.token_ids.shape[1]
    by_token = {}
    for group in batch.vision:
        for pixels, place in zip(group.pixels.reshape(-1, *group.pixels.shape[3:]), group.destination.ravel(),
                                 strict=True):
            by_token[int(place)] = pixels
    for b, prompt in enumerate(prompts):
        for picture in prompt.pictures:
            got = np.stack([by_token[b * width + int(p)] for p in picture.positions])
            np.testing.assert_array_equal(got, picture.patches.reshape(got.shape))


def test_cells_tell_where_patches_lie(batch, prompts):
    width = batch.token_ids.shape[1]
    cells = {int(place): cell.tolist() for group in batch.vision
             for cell, place in zip(group.cells.reshape(-1, 3), group.destination.ravel(), strict=True)}
    for b, prompt in enumerate(prompts):
        for picture in prompt.pictures:
            _, rows, cols = picture.grid
            for k, position in enumerate(picture.positions):
                r, c = divmod(k % (rows * cols), cols)
                assert cells[b * width + int(position)] == [r, c, r // 4 * -(-cols // 4) + c // 4]
    assert cells[batch.token_ids.size] == [-1, -1, -1]


def test_unpacking_the_blocks_gives_the_mel_back(batch, prompts):
    """Blocks restart every 200 frames; only frames too few for a token are left out."""
    blocks = [(mel, n, place) for group in batch.audio
              for mel, n, place in zip(group.mel, group.frames, group.destination, strict=True) if n]
    clips = [(b, clip) for b, prompt in enumerate(prompts) for clip in prompt.clips]
    for b, clip in clips:
        left, positions = len(clip.mel), clip.positions + b * batch.token_ids.shape[1]
        start = 0
        while left >= 3:
            mel, n, place = blocks.pop(0)
            assert n == min(left, 200) and (mel[n:] == 0).all()
            np.testing.assert_array_equal(mel[:n], clip.mel[start : start + n])
            count = ((n - 1) // 2 + 1) // 2
            np.testing.assert_array_equal(place[:count], positions[start // 4 : start // 4 + count])
            assert (place[count:] == batch.token_ids.size).all()
            left, start = left - n, start + n
    assert not blocks


def test_groups_keep_to_their_limits_and_shapes(batch, limits):
    for group in batch.vision:
        pairs, bins, slots = group.destination.shape
        assert group.pixels.dtype == np.uint8 and group.cells.shape == (pairs, bins, slots, 3) and slots == 16
        assert pairs == 1 or pairs * bins * slots * 4 <= limits["max_patches"]
        padding = group.cells[..., 2] < 0
        assert (group.destination[padding] == batch.token_ids.size).all() and (group.pixels[padding] == 0).all()
    for group in batch.audio:
        assert group.mel.dtype == np.float32 and len(group.mel) <= limits["max_blocks"]
        assert group.mel.shape[1:] == (200, 128) and group.destination.shape == (len(group.mel), 50)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_media_are_padded_to_what_a_mesh_can_share_and_no_further(processor, prompts, devices):
    alone, shared = collate(prompts, processor.config), collate(prompts, processor.config, devices=devices)
    for one, group in zip((*alone.audio, *alone.vision), (*shared.audio, *shared.vision), strict=True):
        n, padded = len(one.destination), len(group.destination)
        assert padded < n + devices and (padded % devices == 0 or padded == power_of_two(n) < devices)
        np.testing.assert_array_equal(group.destination[:n], one.destination)
        assert (group.destination[n:] == shared.token_ids.size).all()


def test_grids(batch, prompts):
    assert batch.vision_grid.shape == (3, 3, 3) and batch.vision_grid.dtype == np.int32
    assert batch.vision_grid[0].tolist() == [list(p.grid) for p in prompts[0].pictures]
    assert not batch.vision_grid[1].any() and not batch.vision_grid[2, 1:].any()
    assert batch.seconds_per_grid.dtype == np.float32 and batch.seconds_per_grid[0].tolist() == [0, 1, 0]


def test_text_alone_has_one_empty_picture_row(processor, prompts):
    batch = collate([prompts[1]], processor.config)
    assert batch.vision_grid.shape == (1, 1, 3) and not batch.audio and not batch.vision


def test_a_row_of_a_batch_is_the_row_alone(processor, prompts, batch):
    alone = collate([prompts[2]], processor.config)
    n = int(batch.lengths[2])
    np.testing.assert_array_equal(alone.token_ids[0, :n], batch.token_ids[2, :n])
    np.testing.assert_array_equal(alone.vision_grid[0, 0], batch.vision_grid[2, 0])


def test_no_prompts(processor):
    with pytest.raises(OmniError) as error:
        collate([], processor.config)
    one_sentence(error, "batch")
