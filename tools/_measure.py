"""What tools/benchmark.py measures with: rounds of timings in alternation, their spread, and the work of a network
counted by hand (2 * m * n * k of every matrix product, attention and convolutions among them)."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omni_jax.config import AudioConfig, TextConfig, VisionConfig

FLOAT32 = 4  # bytes
FEWEST_ROUNDS = 3
PAUSE = 0.02  # seconds between runs, in which the other framework's idle threads stop spinning


@dataclasses.dataclass(frozen=True)
class Side:
    """Something to time: `run(*prepare())`, of which only `run` counts; it must wait for its result."""

    run: Callable[..., Any]
    prepare: Callable[[], tuple] = tuple


@dataclasses.dataclass(frozen=True)
class Job:
    """One comparison. `units`: what one run does, for people; `work`: its FLOPs ("matmul") or bytes ("read"); `fewest`:
    rounds that are made however long they take."""

    part: str
    detail: str
    ours: Side
    theirs: Side
    difference: Callable[[Any, Any], float]
    units: float
    unit: str
    work: float = 0
    kind: str | None = None
    fewest: int = FEWEST_ROUNDS


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1, scale: float = 1) -> str:
        median, low, high = (f"{scale * value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{median} ({low}..{high})"


def rounds(sides: Mapping[str, Side], repeats: int, budget: float,
           fewest: int = FEWEST_ROUNDS) -> dict[str, list[float]]:
    """Seconds of each side over `repeats` rounds, one after the other in every round (A B A B …), so that whatever
    else the machine does falls on all alike. After `budget` seconds no more than `fewest` are made."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    started = time.perf_counter()
    for done in range(repeats):
        if done >= fewest and time.perf_counter() - started > budget:
            break
        for name, side in sides.items():
            arguments = side.prepare()
            time.sleep(PAUSE)
            begun = time.perf_counter()
            side.run(*arguments)
            times[name].append(time.perf_counter() - begun)
    return times


def rate(work: float, seconds: Sequence[float]) -> Spread:
    return Spread.of([work / each for each in seconds])


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two lists of seconds, pair by pair."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    title = f"  {row['part']:10} {row['detail']:34}"
    if "total" in row:
        pieces = ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["pieces"].items())
        return f"{title} {row['total'].text(2)} s{': ' * bool(pieces)}{pieces}"
    digits = 2 if row["unit"] == "s" else 1
    text = (f"{title} ours {row['ours'].text(digits)} {row['unit']}, reference {row['reference'].text(digits)}, "
            f"ratio {row['ratio'].text(2)}")
    if "peak_kind" in row:
        unit = "GFLOP/s" if row["peak_kind"] == "matmul" else "GB/s"
        text += (f", {row['ours_giga_per_second'].text()} {unit} = {row['ours_share'].text(0, 100)} % of the peak "
                 f"(reference {row['reference_share'].text(0, 100)} %)")
    return text


def layer_weights(text: TextConfig) -> int:
    """Numbers in the matrices of one decoder layer: q and o, k and v, gate, up and down."""
    D, N, K, H = text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim
    return D * (2 * N * H + 2 * K * H + 3 * text.intermediate_size)


def decode_bytes(text: TextConfig, length: int) -> int:
    """Float32 bytes that one step must read: layers and head once, and the cache of `length` positions."""
    cache = 2 * text.num_key_value_heads * text.head_dim * length
    layers = text.num_hidden_layers * (layer_weights(text) + cache)
    return FLOAT32 * (layers + text.vocab_size * text.hidden_size)


def prefill_flops(text: TextConfig, T: int) -> int:
    """T tokens through the layers, each looking at itself and those before it, and the last one's logits."""
    looks = T * (T + 1) // 2
    attention = 2 * 2 * text.num_attention_heads * text.head_dim * looks
    layers = text.num_hidden_layers * (2 * T * layer_weights(text) + attention)
    return layers + 2 * text.vocab_size * text.hidden_size


def audio_flops(audio: AudioConfig, frames: int) -> int:
    """Two convolutions of three taps (the second halves the frames), the layers over blocks, and the projection."""
    D, block = audio.d_model, audio.n_window
    positions = (frames + 1) // 2
    looks = positions // block * block**2 + (positions % block) ** 2
    convolutions = 2 * 3 * D * (frames * audio.num_mel_bins + positions * D)
    layer = 2 * positions * (4 * D**2 + 2 * D * audio.encoder_ffn_dim) + 2 * 2 * D * looks
    return convolutions + audio.encoder_layers * layer + 2 * (positions // 2) * D * audio.output_dim


def vision_flops(vision: VisionConfig, grid: tuple[int, int, int]) -> int:
    """Patches in, the layers (windows in most, the whole frame pair in some), and the merger; grid in cells."""
    D, merge, side = vision.hidden_size, vision.spatial_merge_size**2, vision.window_cells
    F, rows, cols = grid
    cells, joined = F * rows * cols, D * merge
    sides = lambda length: [min(side, length - first) for first in range(0, length, side)]
    in_windows = F * sum((a * b * merge) ** 2 for a in sides(rows) for b in sides(cols))
    in_frames = F * (rows * cols * merge) ** 2
    full = len(vision.fullatt_block_indexes)
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    linear = 2 * cells * merge * (patch * D + vision.depth * (4 * D**2 + 3 * D * vision.intermediate_size))
    attention = 2 * 2 * D * (full * in_frames + (vision.depth - full) * in_windows)
    return linear + attention + 2 * cells * joined * (joined + vision.out_hidden_size)
