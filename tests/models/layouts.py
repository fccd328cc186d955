"""Random prompt layouts and a plain Python TMRoPE: loops over the items of a prompt, one id at a time."""

import dataclasses

import numpy as np

TOKENS = {"audio_token_index": 301, "image_token_index": 302, "video_token_index": 303, "audio_start_token_id": 304,
          "audio_end_token_id": 305, "vision_start_token_id": 306, "vision_end_token_id": 307}
CHUNK = 50  # ids in two seconds


@dataclasses.dataclass(frozen=True)
class Item:
    """kind: text, image, audio, video or sounding (a video with its sound). size: text tokens; frames: mel frames;
    grid: frame pairs, rows and columns of cells; seconds: of each frame pair."""

    kind: str
    size: int = 0
    frames: int = 0
    grid: tuple = (0, 0, 0)
    seconds: float = 0.0

    @property
    def audio_tokens(self) -> int:
        return ((self.frames - 1) // 2 + 1 - 2) // 2 + 1


def random_layout(rng: np.random.Generator, sounding: bool) -> list[Item]:
    """A prompt of a few items; with `sounding` every video has its sound (the reference's flag is for the batch)."""
    items = [Item("text", size=int(rng.integers(1, 9)))]
    for _ in range(rng.integers(0, 5)):
        kind = rng.choice(["image", "audio", "sounding" if sounding else "video", "text"])
        grid = tuple(int(n) for n in rng.integers(1, 7, 3))
        frames = int(rng.integers(3, 900))
        seconds = 2 / float(rng.choice([1.0, 2.0, rng.uniform(1.0, 12.0), 30000 / 1001]))
        if kind == "image":
            items.append(Item(kind, grid=(1, *grid[1:])))
        elif kind == "audio":
            items.append(Item(kind, frames=frames))
        elif kind == "text":
            items.append(Item(kind, size=int(rng.integers(1, 30))))
        else:
            grid = (int(rng.integers(1, 14)), *grid[1:])
            items.append(Item(kind, frames=frames if kind == "sounding" else 0, grid=grid, seconds=seconds))
    return [*items, Item("text", size=int(rng.integers(1, 9)))]


def time_id(t: int, seconds: float) -> int:
    return int(np.float32(np.float32(t) * np.float32(seconds)) * np.float32(25))


def plain_tmrope(items: list[Item]) -> tuple[list[int], list[tuple[int, int, int]], int]:
    """(tokens, ids, next id) of a layout."""
    tokens: list[int] = []
    ids: list[tuple[int, int, int]] = []

    def text(*new: int) -> None:
        at = max(ids[-1]) + 1 if ids else 0
        for i, token in enumerate(new):
            tokens.append(token)
            ids.append((at + i,) * 3)

    def cells(item: Item, t: int, at: int) -> list:
        _, rows, columns = item.grid
        return [(at + time_id(t, item.seconds), at + r, at + c) for r in range(rows) for c in range(columns)]

    def close(block: list, *ends: int) -> None:
        at = max(max(i) for i in block) + 1
        for token in ends:
            tokens.append(token)
            ids.append((at,) * 3)

    def medium(token: int, block: list) -> None:
        tokens.extend([token] * len(block))
        ids.extend(block)

    T = TOKENS
    for item in items:
        if item.kind == "text":
            text(*range(1, item.size + 1))
        elif item.kind == "audio":
            text(T["audio_start_token_id"])
            block = [(ids[-1][0] + 1 + i,) * 3 for i in range(item.audio_tokens)]
            medium(T["audio_token_index"], block)
            close(block, T["audio_end_token_id"])
        elif item.kind in ("image", "video"):
            text(T["vision_start_token_id"])
            at = ids[-1][0] + 1
            block = [cell for t in range(item.grid[0]) for cell in cells(item, t, at)]
            medium(T[f"{item.kind}_token_index"], block)
            close(block, T["vision_end_token_id"])
        else:
            text(T["vision_start_token_id"])
            tokens.append(T["audio_start_token_id"])
            ids.append(ids[-1])
            at, block = ids[-1][0] + 1, []
            last = max(time_id(item.grid[0] - 1, item.seconds), item.audio_tokens - 1)
            for start in range(0, last + 1, CHUNK):
                times = [t for t in range(item.grid[0]) if start <= time_id(t, item.seconds) < start + CHUNK]
                seen = [cell for t in times for cell in cells(item, t, at)]
                heard = [(at + i,) * 3 for i in range(start, min(start + CHUNK, item.audio_tokens))]
                for token, part in ((T["video_token_index"], seen), (T["audio_token_index"], heard)):
                    medium(token, part)
                    block = part or block
            close(block, T["audio_end_token_id"], T["vision_end_token_id"])
    return tokens, ids, max(max(i) for i in ids) + 1


def vision_tables(batch: list[list[Item]]) -> tuple[np.ndarray, np.ndarray]:
    """The builder's vision_grid [B, I, 3] and seconds_per_grid [B, I]."""
    pictures = [[item for item in items if item.grid[0]] for items in batch]
    width = max(1, *map(len, pictures))
    grid, seconds = np.zeros((len(batch), width, 3), np.int32), np.zeros((len(batch), width), np.float32)
    for b, row in enumerate(pictures):
        for i, item in enumerate(row):
            grid[b, i], seconds[b, i] = item.grid, item.seconds
    return grid, seconds


def pad(rows: list[list[int]], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows padded on the right with 0, and their lengths."""
    lengths = np.array([len(row) for row in rows], np.int32)
    out = np.zeros((len(rows), length or lengths.max()), np.int32)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out, lengths
