"""From a conversation to a prompt: tokens, mel frames, patches, and where each of them belongs."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.config import PIXEL_MEAN, PIXEL_STD, OmniConfig, read_json_object
from omni_jax.data.audio import (
    HOP,
    N_FFT,
    SAMPLE_RATE,
    audio_tokens,
    decode_sound,
    load_audio,
    log_mel,
    mel_frames,
    time_range,
    to_waveform,
)
from omni_jax.data.batch import AudioClip, Example, MediaInfo, Picture, Prompt, Turn
from omni_jax.data.chat_template import MediaItem, Segment, render, render_example, render_next, spoken
from omni_jax.data.image import frame_pairs, image_size, open_image, resize, to_rgb
from omni_jax.data.sources import Source
from omni_jax.data.tokenizer import Tokenizer
from omni_jax.data.video import DEFAULT_FPS, VideoPlan, plan_video, read_frames
from omni_jax.errors import OmniError, require

SECONDS_PER_CHUNK = 2  # of sound and video that are interleaved at a time
TOKEN_FIELDS = {
    "<|AUDIO|>": "audio_token_index", "<|audio_bos|>": "audio_start_token_id", "<|audio_eos|>": "audio_end_token_id",
    "<|IMAGE|>": "image_token_index", "<|VIDEO|>": "video_token_index",
    "<|vision_bos|>": "vision_start_token_id", "<|vision_eos|>": "vision_end_token_id",
}


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A text, or a medium whose size is known but whose frames or mel are not computed yet.

    `token_ids`: int32 [n] with the marks around; `info`: what went in; `build(offset)` gives its clips and pictures,
    `offset` being where its tokens begin in the prompt.
    """

    token_ids: np.ndarray
    info: tuple[MediaInfo, ...] = ()
    build: Callable[[int], tuple[list[AudioClip], list[Picture]]] = lambda offset: ([], [])


class Processor:
    """Turns conversations into prompts for the model that `config` describes."""

    def __init__(self, tokenizer: Tokenizer, config: OmniConfig):
        self.tokenizer, self.config = tokenizer, config

    @classmethod
    def load(cls, directory: str | Path, config: OmniConfig) -> "Processor":
        """From the tokenizer files of a checkpoint directory. Raises OmniError if they, or preprocessor_config.json,
        contradict `config`."""
        tokenizer = Tokenizer.load(directory)
        for token, field in TOKEN_FIELDS.items():
            expected, found = getattr(config.thinker_config, field), tokenizer.token_id(token)
            if expected != found:
                raise OmniError(f"{directory}: the tokenizer gives {token} the id {found}, but {field} in config.json "
                                f"is {expected}; take both from one checkpoint")
        _check_preprocessor(Path(directory) / "preprocessor_config.json", config)
        return cls(tokenizer, config)

    def prompt(self, conversation: Sequence[Mapping[str, Any]], use_audio_in_video: bool = False,
               fps_for_positions: str = "true", max_new_tokens: int = 0) -> Prompt:
        """The prompt of a whole conversation, which leaves room for `max_new_tokens` in the context.

        `use_audio_in_video`: every video is heard as well. `fps_for_positions`: "true" (each video's own sampled
        rate) or "nominal" (the item's fps, else 2.0, as the reference). Raises OmniError, before frames are decoded
        or mels computed if the prompt is too long.
        """
        plans = self._plans(render(conversation), use_audio_in_video, fps_for_positions)
        check_context(_draft(plans), self.config, max_new_tokens)
        return _built(plans)

    def next_prompt(self, messages: Sequence[Mapping[str, Any]], use_audio_in_video: bool = False,
                    fps_for_positions: str = "true", max_new_tokens: int = 0, past_tokens: int = 0) -> Prompt:
        """The tokens that continue a chat of `past_tokens` after its reply (without end token) with new messages.

        Positions count from the first new token. Otherwise as `prompt`.
        """
        plans = self._plans(render_next(messages), use_audio_in_video, fps_for_positions)
        check_context(_draft(plans), self.config, max_new_tokens, past_tokens)
        return _built(plans)

    def example(self, conversation: Sequence[Mapping[str, Any]], use_audio_in_video: bool = False,
                fps_for_positions: str = "true", length: int | None = None) -> Example:
        """A conversation to learn from: its tokens as a model would read and write them, and which of them it writes.

        `length`: tokens at most, if fewer than the context. Raises OmniError, as `prompt` does, also if the
        conversation has no assistant message.
        """
        pieces = render_example(conversation)
        plans = self._plans([segment for segment, _ in pieces], use_audio_in_video, fps_for_positions)
        context = self.config.thinker_config.text_config.max_position_embeddings
        limit = min(length or context, context)
        check_length(_draft(plans), limit, f"the length of {limit:,}")
        learn = np.concatenate([np.full(len(plan.token_ids), learn)
                                for plan, (_, learn) in zip(plans, pieces, strict=True)])
        return Example(_built(plans), learn, _turns(learn, spoken(conversation)))

    def _plans(self, segments: list[Segment], use_audio: bool, fps_for_positions: str) -> list[_Planned]:
        _check_fps_for_positions(fps_for_positions, "fps_for_positions")
        return [self._plan(segment, use_audio, fps_for_positions) for segment in segments]

    def _plan(self, item: Segment, use_audio: bool, fps_for_positions: str) -> _Planned:
        if isinstance(item, str):
            return _Planned(np.array(self.tokenizer.encode(item), np.int32))
        if item.kind == "image":
            return self._plan_image(item)
        if item.kind == "audio":
            return self._plan_audio(item)
        return self._plan_video(item, use_audio, fps_for_positions)

    def _plan_image(self, item: MediaItem) -> _Planned:
        ids, vision = self.config.thinker_config, self.config.thinker_config.vision_config
        picture, name = open_image(item.source, item.where)
        size = image_size(picture.height, picture.width, item.options, name, vision.cell_pixels)
        grid = (1, size[0] // vision.cell_pixels, size[1] // vision.cell_pixels)

        def build(offset: int) -> tuple[list[AudioClip], list[Picture]]:
            frame = resize(to_rgb(picture, name), *size)[None]
            patches = frame_pairs(frame, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
            return [], [Picture(patches, grid, offset + 1 + np.arange(math.prod(grid), dtype=np.int32), 0.0)]

        tokens = _marked(ids.vision_start_token_id, np.full(math.prod(grid), ids.image_token_index),
                         ids.vision_end_token_id)
        return _Planned(tokens, (MediaInfo("image", name, 0.0, 0, 0.0, size, math.prod(grid)),), build)

    def _plan_audio(self, item: MediaItem) -> _Planned:
        ids = self.config.thinker_config
        waveform = load_audio(item.source, item.options, item.where)
        info = _sound_info(_name(item), waveform)

        def build(offset: int) -> tuple[list[AudioClip], list[Picture]]:
            mel = log_mel(waveform, ids.audio_config.num_mel_bins)
            return [AudioClip(mel, offset + 1 + np.arange(info.tokens, dtype=np.int32))], []

        tokens = _marked(ids.audio_start_token_id, np.full(info.tokens, ids.audio_token_index), ids.audio_end_token_id)
        return _Planned(tokens, (info,), build)

    def _plan_video(self, item: MediaItem, use_audio: bool, fps_for_positions: str) -> _Planned:
        ids, vision = self.config.thinker_config, self.config.thinker_config.vision_config
        fps_for_positions = item.options.get("fps_for_positions", fps_for_positions)
        _check_fps_for_positions(fps_for_positions, f"{item.where}: fps_for_positions")
        plan = plan_video(item.source, item.options, vision.cell_pixels, item.where)
        rate = plan.sampled_fps if fps_for_positions == "true" else float(item.options.get("fps", DEFAULT_FPS))
        seconds_per_grid = vision.temporal_patch_size / rate
        grid = (-(-len(plan.indices) // vision.temporal_patch_size), *(s // vision.cell_pixels for s in plan.size))
        info = MediaInfo("video", plan.name, plan.seconds, len(plan.indices), plan.sampled_fps, plan.size,
                         math.prod(grid))
        waveform = _sound_of_video(plan, item) if use_audio else None
        sound = () if waveform is None else (_sound_info(f"{plan.name} (sound track)", waveform),)
        is_sound = interleave(grid, seconds_per_grid, sound[0].tokens if sound else 0, ids.position_id_per_seconds)

        def build(offset: int) -> tuple[list[AudioClip], list[Picture]]:
            first = offset + 1 + len(sound)
            positions = first + np.flatnonzero(~is_sound).astype(np.int32)
            clips = [AudioClip(log_mel(waveform, ids.audio_config.num_mel_bins),
                               first + np.flatnonzero(is_sound).astype(np.int32))] if sound else []
            return clips, [Picture(_patches(plan, grid, self.config), grid, positions, seconds_per_grid)]

        tokens = np.where(is_sound, ids.audio_token_index, ids.video_token_index)
        if sound:
            tokens = _marked(ids.audio_start_token_id, tokens, ids.audio_end_token_id)
        tokens = _marked(ids.vision_start_token_id, tokens, ids.vision_end_token_id)
        return _Planned(tokens, (info, *sound), build)


def _turns(learn: np.ndarray, sounds: Sequence[Mapping[str, Any] | None]) -> tuple[Turn, ...]:
    """The assistant's turns, of which each is one stretch of what is learnt."""
    edges = np.flatnonzero(np.diff(learn.astype(np.int8), prepend=0, append=0)).tolist()
    stretches = list(zip(edges[::2], edges[1::2], strict=True))
    if len(stretches) != len(sounds):
        require(not any(sounds), "conversation", "the assistant shows media within a spoken turn; leave them out")
        return ()
    return tuple(Turn(start, end - 1, sound) for (start, end), sound in zip(stretches, sounds, strict=True))


def _draft(plans: Sequence[_Planned]) -> Prompt:
    """The prompt without its clips and pictures."""
    return Prompt(np.concatenate([plan.token_ids for plan in plans]), (), (),
                  tuple(info for plan in plans for info in plan.info))


def _built(plans: Sequence[_Planned]) -> Prompt:
    offset, clips, pictures = 0, [], []
    for plan in plans:
        new_clips, new_pictures = plan.build(offset)
        clips, pictures, offset = clips + new_clips, pictures + new_pictures, offset + len(plan.token_ids)
    return dataclasses.replace(_draft(plans), clips=tuple(clips), pictures=tuple(pictures))


def interleave(grid: tuple[int, int, int], seconds_per_grid: float, audio: int, ids_per_second: int) -> np.ndarray:
    """bool [video tokens + audio tokens]: whether each token of a video with sound is sound.

    Chunks of SECONDS_PER_CHUNK, in each video first, then sound. Chunk k holds time ids from k * n to below (k+1) * n,
    n = 2 * ids_per_second; sound token i has id i, frame pair t has trunc(t * seconds_per_grid * ids_per_second).
    """
    # float32 throughout, as the model's position ids: where a frame falls on the border of a chunk, the reference's
    # processor (float64) and its model (float32) disagree, and its ids then shift against its tokens.
    times = np.arange(grid[0], dtype=np.float32) * np.float32(seconds_per_grid) * np.float32(ids_per_second)
    per_chunk = SECONDS_PER_CHUNK * ids_per_second
    video_chunks = np.repeat(times.astype(np.int64) // per_chunk, grid[1] * grid[2])
    order = np.concatenate([2 * video_chunks, 2 * (np.arange(audio) // per_chunk) + 1])
    return np.argsort(order, kind="stable") >= len(video_chunks)


def check_context(prompt: Prompt, config: OmniConfig, max_new_tokens: int = 0, past_tokens: int = 0) -> None:
    """Raises OmniError, saying what would fit, if prompt, reply and `past_tokens` do not fit into the context."""
    context = config.thinker_config.text_config.max_position_embeddings
    limit = context - max_new_tokens - past_tokens
    check_length(prompt, limit, f"the {max(limit, 0):,} that the context of {context:,} leaves beside {past_tokens:,} "
                                f"earlier tokens and {max_new_tokens:,} for the reply")


def check_length(prompt: Prompt, limit: int, room: str) -> None:
    """Raises OmniError, saying what would fit, if the prompt has more than `limit` tokens; `room` names the limit."""
    total = len(prompt.token_ids)
    if total <= limit:
        return
    counts = {kind: sum(i.tokens for i in prompt.media if i.kind == kind) for kind in ("image", "video", "audio")}
    words = {"image": "pictures", "video": "video", "audio": "sound"}
    parts = [f"{total - sum(counts.values()):,} of text", *(f"{n:,} of {words[k]}" for k, n in counts.items() if n)]
    raise OmniError(f"prompt: {total:,} tokens ({', '.join(parts)}) exceed {room}; "
                    f"{_what_fits(prompt.media, counts, total - limit)}")


def _what_fits(media: Sequence[MediaInfo], counts: Mapping[str, int], excess: int) -> str:
    """How far the costliest kind of media must shrink, as the end of a sentence."""
    kind = max(counts, key=counts.get)
    tokens, items = counts[kind], [i for i in media if i.kind == kind]
    if tokens <= excess:
        return "shorten the text" if not tokens else "even without its costliest media it would not fit, shorten it"
    share = (tokens - excess) / tokens
    names = items[0].name if len(items) == 1 else f"{len(items)} files"
    if kind == "image":
        return f"about {share:.0%} of the pixels of {names} fit, lower max_pixels"
    seconds, word = sum(i.seconds for i in items), "sound" if kind == "audio" else "video"
    hint = "shorten it" if kind == "audio" else "shorten it or lower fps, max_frames or max_pixels"
    return f"about {math.floor(seconds * share):,} s of the {seconds:,.0f} s of {word} in {names} fit, {hint}"


def _check_fps_for_positions(value: Any, where: str) -> None:
    if not isinstance(value, str) or value not in ("true", "nominal"):
        raise OmniError(f'{where}: must be "true" or "nominal", not {value!r}')


def _marked(start: int, tokens: np.ndarray, end: int) -> np.ndarray:
    return np.concatenate([[start], tokens, [end]]).astype(np.int32)


def _name(item: MediaItem) -> str:
    named = isinstance(item.source, (str, Path)) and not str(item.source).startswith("data:")
    return str(item.source) if named else item.where


def _sound_info(name: str, waveform: np.ndarray) -> MediaInfo:
    frames = mel_frames(waveform.size)
    return MediaInfo("audio", name, waveform.size / SAMPLE_RATE, frames, 0.0, (0, 0), audio_tokens(frames))


def _sound_of_video(plan: VideoPlan, item: MediaItem) -> np.ndarray:
    if not plan.has_sound or not isinstance(plan.source, Source):
        raise OmniError(f"{plan.name}: has no sound track, but use_audio_in_video is set; turn it off or add sound")
    start, end = time_range(item.options, "video_start", "video_end", plan.name)
    return to_waveform(*decode_sound(plan.source), start, end, f"{plan.name} (sound track)")


def _patches(plan: VideoPlan, grid: tuple[int, int, int], config: OmniConfig) -> np.ndarray:
    """The patches of a video, uint8 [F, rows * cols, merge * merge, values], filled as its frames are decoded."""
    vision = config.thinker_config.vision_config
    patch, merge, temporal = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    patches = np.empty((grid[0], grid[1] * grid[2], merge**2, 3 * temporal * patch**2), np.uint8)
    group = []
    for i, frame in enumerate(read_frames(plan)):
        group.append(frame)
        if len(group) == temporal or i + 1 == len(plan.indices):
            patches[i // temporal] = frame_pairs(np.stack(group), patch, merge, temporal)[0]
            group = []
    return patches


def _check_preprocessor(path: Path, config: OmniConfig) -> None:
    if not path.exists():
        return
    stated = read_json_object(path, "copy it from the checkpoint again")
    vision, audio = config.thinker_config.vision_config, config.thinker_config.audio_config
    expected = {"image_mean": PIXEL_MEAN, "image_std": PIXEL_STD, "patch_size": vision.patch_size,
                "merge_size": vision.spatial_merge_size, "temporal_patch_size": vision.temporal_patch_size,
                "feature_size": audio.num_mel_bins, "hop_length": HOP, "n_fft": N_FFT, "sampling_rate": SAMPLE_RATE}
    for field, value in expected.items():
        if stated.get(field) is not None and not _same_numbers(stated[field], value):
            raise OmniError(f"{path}: {field} is {stated[field]}, but this model needs {value}; correct one of them")


def _same_numbers(stated: Any, expected: Any) -> bool:
    try:
        stated = np.asarray(stated, np.float64)
    except (TypeError, ValueError):
        return False
    return stated.shape == np.shape(expected) and bool(np.allclose(stated, expected, rtol=0, atol=1e-6))
