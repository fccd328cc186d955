import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from omni_jax.config import PIXEL_MEAN, PIXEL_STD
from omni_jax.data import processor as processor_module
from omni_jax.data.audio import log_mel
from omni_jax.data.image import frame_pairs, load_image
from omni_jax.data.processor import Processor, check_context, interleave
from omni_jax.data.video import load_video
from omni_jax.errors import OmniError
from tests.data.media_files import index_of, one_sentence, tone, write_video


def user(*content):
    return [{"role": "user", "content": list(content)}]


def text(string):
    return {"type": "text", "text": string}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", 130, 25, (32, 48), sound=tone(5.3))


@pytest.fixture(scope="module")
def reference():
    """Qwen2_5OmniProcessor's own methods, without the video processor, which needs torchvision."""
    module = pytest.importorskip("transformers.models.qwen2_5_omni.processing_qwen2_5_omni")
    reference = object.__new__(module.Qwen2_5OmniProcessor)
    tokens = {"image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
              "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    for name, value in tokens.items():
        setattr(reference, name, value)
    reference.image_processor = reference.video_processor = SimpleNamespace(merge_size=2)
    return reference


def replacements(reference, prompt, sound_in_video):
    """The reference's placeholder strings for the media of our prompt, by kind."""
    strings = {"<|IMAGE|>": [], "<|VIDEO|>": [], "<|AUDIO|>": []}
    sounds = iter(i.tokens for i in prompt.media if i.kind == "audio")
    for info, picture in zip([i for i in prompt.media if i.kind != "audio"], prompt.pictures, strict=True):
        grid = np.array([picture.grid[0], 2 * picture.grid[1], 2 * picture.grid[2]])
        if info.kind == "image":
            strings["<|IMAGE|>"].append(reference.replace_image_token({"image_grid_thw": [grid]}, 0))
            continue
        inputs = {"video_grid_thw": [grid], "video_second_per_grid": [picture.seconds_per_grid]}
        audio = {"num_audio_tokens": [next(sounds)]} if sound_in_video else None
        strings["<|VIDEO|>"].append(reference.replace_video_token(
            inputs, 0, audio, [0], load_audio_from_video=sound_in_video, position_id_per_seconds=25,
            seconds_per_chunk=2.0))
    strings["<|AUDIO|>"] = ["<|AUDIO|>" * n for n in sounds]
    return {kind: iter(values) for kind, values in strings.items()}


@pytest.mark.parametrize("sound_in_video", [False, True])
def test_token_ids_equal_the_reference(processor, reference, tokenizer_dir, film, sound_in_video):
    transformers = pytest.importorskip("transformers")
    video = {"type": "video", "video": film, "fps": 3, "max_pixels": 40 * 64, "min_pixels": 64}
    content = [text("See: "), {"type": "image", "image": Image.new("RGB", (50, 33))}, video, text("What is it?"),
               {"type": "image", "image": Image.new("L", (9, 80))}]
    if not sound_in_video:
        content.insert(1, {"type": "audio", "audio": tone(3.33)})
    prompt = processor.prompt(user(*content), use_audio_in_video=sound_in_video)
    expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    marks = {"audio": "<|audio_bos|>{}<|audio_eos|>", "image": "<|vision_bos|>{}<|vision_eos|>"}
    strings = replacements(reference, prompt, sound_in_video)
    for item in content:
        if item["type"] == "text":
            expected += item["text"]
        else:
            expected += marks.get(item["type"], marks["image"]).format(next(strings[f"<|{item['type'].upper()}|>"]))
    expected += "<|im_end|>\n<|im_start|>assistant\n"
    ids = transformers.Qwen2Tokenizer.from_pretrained(tokenizer_dir)(expected)["input_ids"]
    assert prompt.token_ids.dtype == np.int32 and prompt.token_ids.tolist() == ids


def test_interleaving_equals_the_reference(reference):
    """Random videos with sound, up to 2 s between frame pairs; above, the reference's chunks degenerate.

    Its model cuts chunks in float32 and its processor in float64: ours follow the model, and the processor wherever
    the two agree.
    """
    rng, agreeing = np.random.default_rng(5), 0
    for _ in range(1500):
        grid = (int(rng.integers(1, 60)), int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        seconds = 2 / float(rng.choice([1.0, 2.0, 2.5, 3.7, 29.97 / 13, 12.5 / 7, rng.uniform(1, 10)]))
        audio = int(rng.integers(1, 500))
        times = (np.arange(grid[0], dtype=np.float32) * np.float32(seconds) * np.float32(25)).astype(np.int64)
        cells = grid[1] * grid[2]
        chunks = [reference.get_chunked_index(ids, 50) for ids in (np.repeat(times, cells), np.arange(audio))]
        expected = []
        for k in range(max(map(len, chunks))):
            for is_sound, parts in enumerate(chunks):
                expected += [bool(is_sound)] * (parts[k][1] - parts[k][0] if k < len(parts) else 0)
        assert interleave(grid, seconds, audio, 25).tolist() == expected
        if (times // 50 == np.arange(grid[0]) * seconds * 25 // 50).all():
            string = reference.replace_video_with_audio_token(
                {"video_grid_thw": [np.array(grid) * (1, 2, 2)], "video_second_per_grid": [seconds]}, 0,
                {"num_audio_tokens": [audio]}, 0, position_id_per_seconds=25, seconds_per_chunk=2.0)
            tokens = string.removeprefix("<|audio_bos|>").removesuffix("<|audio_eos|>").split("|><|")
            assert ["AUDIO" in token for token in tokens] == expected
            agreeing += 1
    assert agreeing > 1000


def test_slow_sampling_keeps_chunks_sane():
    """One frame pair in 5 s: each stands in the chunk of its own time."""
    is_sound = interleave((2, 1, 1), 5.0, 200, 25)
    assert np.flatnonzero(~is_sound).tolist() == [0, 101]


def test_placement_of_media(processor, token_ids, film):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8))
    wave = tone(1.7)
    video = {"type": "video", "video": film, "nframes": 6, "resized_height": 16, "resized_width": 24}
    prompt = processor.prompt(user({"type": "audio", "audio": wave}, video, {"type": "image", "image": image}), True)
    ids, (clip, sound), (film_picture, still) = prompt.token_ids, prompt.clips, prompt.pictures
    for positions, token in ((clip.positions, "<|AUDIO|>"), (sound.positions, "<|AUDIO|>"),
                             (film_picture.positions, "<|VIDEO|>"), (still.positions, "<|IMAGE|>")):
        assert (ids[positions] == token_ids[token]).all() and positions.dtype == np.int32
    for token, count in (("<|AUDIO|>", len(clip.positions) + len(sound.positions)), ("<|vision_bos|>", 2),
                         ("<|VIDEO|>", 3 * 2 * 3), ("<|IMAGE|>", len(still.positions)), ("<|audio_bos|>", 2),
                         ("<|audio_eos|>", 2), ("<|vision_eos|>", 2)):
        assert (ids == token_ids[token]).sum() == count
    first = film_picture.positions[0]
    assert ids[first - 2 : first].tolist() == [token_ids["<|vision_bos|>"], token_ids["<|audio_bos|>"]]
    np.testing.assert_array_equal(clip.mel, log_mel(wave))
    np.testing.assert_array_equal(still.patches, frame_pairs(load_image(image, factor=8)[None], 4))
    frames, plan = load_video(film, video, 8)
    np.testing.assert_array_equal(film_picture.patches, frame_pairs(frames, 4))
    assert film_picture.grid == (3, 2, 3) and film_picture.seconds_per_grid == 2 / plan.sampled_fps
    assert still.grid == (1, 5, 9) and still.seconds_per_grid == 0.0
    assert [(i.kind, i.tokens) for i in prompt.media] == [
        ("audio", 42), ("video", 18), ("audio", len(sound.positions)), ("image", 45)]
    assert prompt.media[1].frames == 6 and prompt.media[1].name == film and prompt.media[1].size == (16, 24)
    assert prompt.media[1].seconds == pytest.approx(5.2)


def test_rate_for_positions(processor, film):
    def seconds(fps_for_positions, **item):
        small = {"type": "video", "video": film, "resized_height": 8, "resized_width": 8, **item}
        return processor.prompt(user(small), fps_for_positions=fps_for_positions).pictures[0].seconds_per_grid

    assert seconds("true") == pytest.approx(2 / (10 / 130 * 25)) and seconds("nominal") == 1.0
    assert seconds("true", fps=3.3) == pytest.approx(2 / (16 / 130 * 25)) and seconds("nominal", fps=3.3) == 2 / 3.3
    with pytest.raises(OmniError) as error:
        seconds("wrong")
    one_sentence(error, "fps_for_positions")
    item = {"type": "video", "video": film, "resized_height": 8, "resized_width": 8}
    nominal = processor.prompt(user({**item, "fps_for_positions": "nominal"}))
    assert nominal.pictures[0].seconds_per_grid == 1.0
    for wrong in ("Nominal", True, 2.0, ["true"]):
        with pytest.raises(OmniError) as error:
            processor.prompt(user(text("Look:"), {**item, "fps_for_positions": wrong}))
        one_sentence(error, "message 0, item 1", "fps_for_positions", wrong, '"true" or "nominal"')


def test_a_stretch_of_a_video_has_its_own_sound(processor, film):
    item = {"type": "video", "video": film, "resized_height": 8, "resized_width": 8, "video_start": 1, "video_end": 3.0}
    prompt = processor.prompt(user(item), True)
    video, sound = prompt.media
    assert sound.seconds == pytest.approx(2.0) and sound.tokens == 50 and video.seconds == pytest.approx(51 / 25)
    frames, _ = load_video(film, item, 8)
    assert (index_of(frames[0]), index_of(frames[-1])) == (25, 75)


def test_list_of_frames(processor):
    frames = [np.full((16, 24, 3), i, np.uint8) for i in range(5)]
    (picture,) = processor.prompt(user({"type": "video", "video": frames, "fps": 4})).pictures
    assert picture.grid == (3, 2, 3) and picture.seconds_per_grid == 0.5
    assert picture.patches[2].min() == picture.patches[2].max() == 4


def test_next_prompt_continues(processor):
    messages = [{"role": "user", "content": "Hello"}]
    first, more = processor.prompt(messages), [{"role": "user", "content": [{"type": "audio", "audio": tone(1)}]}]
    reply = processor.tokenizer.encode("I hear you")
    whole = processor.prompt([*messages, {"role": "assistant", "content": "I hear you"}, *more])
    following = processor.next_prompt(more)
    assert [*first.token_ids, *reply, *following.token_ids] == whole.token_ids.tolist()
    shift = len(first.token_ids) + len(reply)
    np.testing.assert_array_equal(following.clips[0].positions + shift, whole.clips[0].positions)


@pytest.mark.parametrize(("item", "words"), [
    ({"type": "audio", "audio": tone(60)}, ["of sound", "of the 60 s", "shorten"]),
    ({"type": "image", "image": Image.new("RGB", (400, 400))}, ["of pictures", "max_pixels"]),
    ({"type": "video", "video": "FILM", "fps": 25}, ["of video", "of the 5 s", "film.mp4"]),
    (text("word " * 2000), ["of text", "shorten the text"])])
def test_prompts_over_the_context(tokenizer_dir, make_config, monkeypatch, film, item, words):
    """The error comes before frames are decoded or mel is computed, and tells how much would fit."""
    for expensive in ("log_mel", "read_frames", "to_rgb"):
        monkeypatch.setattr(processor_module, expensive, lambda *_: pytest.fail("long work before the check"))
    small = Processor.load(tokenizer_dir, make_config(patch_size=4, context=1000))
    item = {**item, "video": film} if item.get("video") == "FILM" else item
    with pytest.raises(OmniError) as error:
        small.prompt(user(item), max_new_tokens=100)
    one_sentence(error, "900", "1,000", *words)


def test_what_is_said_to_fit_does_fit(tokenizer_dir, make_config):
    small = Processor.load(tokenizer_dir, make_config(patch_size=4, context=1000))
    with pytest.raises(OmniError) as error:
        small.prompt(user({"type": "audio", "audio": tone(60)}), max_new_tokens=100)
    seconds = int(str(error.value).split("about ")[1].split(" s")[0])
    prompt = small.prompt(user({"type": "audio", "audio": tone(seconds)}), max_new_tokens=100)
    with pytest.raises(OmniError):
        small.prompt(user({"type": "audio", "audio": tone(seconds + 2)}), max_new_tokens=100)
    with pytest.raises(OmniError) as error:
        check_context(prompt, small.config, 100, past_tokens=200)
    one_sentence(error, "200 earlier")


def test_video_without_sound(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(processor_module, "read_frames", lambda *_: pytest.fail("frames decoded before the check"))
    silent = write_video(tmp_path / "silent.mp4", 30)
    with pytest.raises(OmniError) as error:
        processor.prompt(user({"type": "video", "video": silent}), use_audio_in_video=True)
    one_sentence(error, silent, "sound track", "use_audio_in_video")
    frames = [np.zeros((16, 16, 3), np.uint8)] * 4
    with pytest.raises(OmniError) as error:
        processor.prompt(user({"type": "video", "video": frames}), use_audio_in_video=True)
    one_sentence(error, "message 0, item 0", "sound track")


def test_contradicting_files(tokenizer_dir, make_config, tmp_path):
    directory = tmp_path / "checkpoint"
    shutil.copytree(tokenizer_dir, directory)
    fine = {"image_mean": PIXEL_MEAN, "image_std": PIXEL_STD, "patch_size": 14, "merge_size": 2, "n_fft": 400,
            "temporal_patch_size": 2, "feature_size": 128, "hop_length": 160, "sampling_rate": 16000, "other": 1}
    stated = directory / "preprocessor_config.json"
    stated.write_text(json.dumps(fine))
    Processor.load(directory, make_config())
    for field, value in (("image_mean", [0.5, 0.5, 0.5]), ("patch_size", 16), ("feature_size", 80), ("hop_length", 128),
                         ("image_std", "x"), ("image_mean", [0.5])):
        stated.write_text(json.dumps({**fine, field: value}))
        with pytest.raises(OmniError) as error:
            Processor.load(directory, make_config())
        one_sentence(error, stated, field)
    stated.write_text("{")
    with pytest.raises(OmniError) as error:
        Processor.load(directory, make_config())
    one_sentence(error, stated)


def test_tokenizer_of_another_model(tokenizer_dir, make_config):
    config = make_config()
    thinker = processor_module.dataclasses.replace(config.thinker_config, audio_token_index=7)
    with pytest.raises(OmniError) as error:
        Processor.load(tokenizer_dir, processor_module.dataclasses.replace(config, thinker_config=thinker))
    one_sentence(error, tokenizer_dir, "<|AUDIO|>", "audio_token_index", "7")


def test_the_sample_media(tokenizer_dir, make_config):
    """Real speech, a real picture and a real video with sound, at the releases' sizes."""
    samples = Path(processor_module.__file__).parents[1] / "assets" / "samples"
    full = Processor.load(tokenizer_dir, make_config())
    items = [{"type": kind, kind: samples / name}
             for kind, name in (("audio", "speech.flac"), ("image", "picture.jpg"), ("video", "video.mp4"))]
    prompt = full.prompt(user(*items), use_audio_in_video=True)
    assert [info.kind for info in prompt.media] == ["audio", "image", "video", "audio"]
    assert all(info.tokens > 40 and info.name.startswith(str(samples)) for info in prompt.media)
    assert sum(info.tokens for info in prompt.media) == sum(
        len(medium.positions) for medium in (*prompt.clips, *prompt.pictures))


def test_an_example_is_what_generation_reads_and_writes(processor):
    """Prompt, reply, next prompt and reply, each tokenised by itself; only the replies are learnt."""
    turns = [*user(text("Hear: "), {"type": "audio", "audio": tone(1.0)}),
             {"role": "assistant", "content": "\nIt's"}, *user("And?"), {"role": "assistant", "content": "Größe"}]
    example = processor.example(turns)
    encode = lambda text: processor.tokenizer.encode(text)
    first, second = processor.prompt(turns[:1]), processor.next_prompt(turns[2:3])
    end = encode("<|im_end|>")
    assert second.token_ids[:1].tolist() == end  # of the reply before it
    parts = [(first.token_ids.tolist(), False), (encode("\nIt's") + end, True),
             (second.token_ids[1:].tolist(), False), (encode("Größe") + end, True)]
    assert example.prompt.token_ids.tolist() == [token for tokens, _ in parts for token in tokens]
    assert example.learn.dtype == bool and example.learn.tolist() == [
        learn for tokens, learn in parts for _ in tokens]
    np.testing.assert_array_equal(example.prompt.clips[0].positions, first.clips[0].positions)


def test_an_example_over_the_length(processor, monkeypatch):
    monkeypatch.setattr("omni_jax.data.processor.log_mel", None)  # nothing is computed first
    turns = [*user({"type": "audio", "audio": tone(9.0)}), {"role": "assistant", "content": "A"}]
    with pytest.raises(OmniError) as error:
        processor.example(turns, length=200)
    one_sentence(error, "length of 200", "225 of sound", "shorten")
