import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from omni_jax.models import tmrope
from tests.models.layouts import TOKENS, Item, pad, plain_tmrope, random_layout, vision_tables

CONFIG = SimpleNamespace(**TOKENS, position_id_per_seconds=25)
LENGTH = 4096


@jax.jit
def build(tokens, lengths, grid, seconds, start):
    return tmrope.position_ids(CONFIG, tokens, lengths, grid, seconds, start)


def built(batch, start=0, length=LENGTH):
    tokens, lengths = pad([plain_tmrope(items)[0] for items in batch], length)
    grid, seconds = vision_tables(batch)
    grid = np.pad(grid, ((0, 0), (0, 8 - grid.shape[1]), (0, 0)))
    seconds = np.pad(seconds, ((0, 0), (0, 8 - seconds.shape[1])))
    ids, following = build(tokens, lengths, grid, seconds, np.full(len(batch), start, np.int32))
    return np.asarray(ids), np.asarray(following), lengths


def reference_ids(batch, sounding):
    """The ids of transformers, whose rows are padded on the left: list of [3, T]."""
    torch = pytest.importorskip("torch")
    from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

    base = reference.Qwen2_5OmniPreTrainedModelForConditionalGeneration
    names = {name.replace("_index", "_id"): value for name, value in TOKENS.items()}
    stub = SimpleNamespace(config=SimpleNamespace(**names, position_id_per_seconds=25, seconds_per_chunk=2),
                           spatial_merge_size=2)
    stub.get_llm_pos_ids_for_vision = base.get_llm_pos_ids_for_vision.__get__(stub)
    stub.get_chunked_index = base.get_chunked_index.__get__(stub)
    rows = [plain_tmrope(items)[0] for items in batch]
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    items = [item for row in batch for item in row]
    patches = lambda kinds: [(g[0], 2 * g[1], 2 * g[2]) for i in items if i.kind in kinds for g in [i.grid]]
    table = lambda kinds: torch.tensor(patches(kinds)) if patches(kinds) else None
    ids, delta = base.get_rope_index(
        stub, tokens, table(("image",)), table(("video", "sounding")), mask, sounding,
        torch.tensor([i.frames for i in items if i.frames]), torch.tensor([i.seconds for i in items if i.seconds]))
    ids = [ids[:, b, width - len(row):].numpy() for b, row in enumerate(rows)]
    return ids, [int(d) + len(row) for d, row in zip(delta[:, 0], rows, strict=True)]


@pytest.mark.parametrize("sounding", [False, True])
def test_equals_plain_python_and_reference_on_random_layouts(sounding):
    rng = np.random.default_rng(7 + sounding)
    compared = 0
    while compared < 600:
        batch = [random_layout(rng, sounding) for _ in range(4)]
        if max(len(plain_tmrope(items)[0]) for items in batch) > LENGTH:
            continue
        ids, following, lengths = built(batch)
        theirs, their_next = reference_ids(batch, sounding)
        for b, items in enumerate(batch):
            _, plain, plain_next = plain_tmrope(items)
            np.testing.assert_array_equal(ids[:, b, : lengths[b]].T, plain)
            np.testing.assert_array_equal(ids[:, b, : lengths[b]], theirs[b])
            assert following[b] == plain_next
            # Without any picture in the batch the reference counts tokens; else it takes the greatest id.
            assert following[b] == their_next[b]
            assert (ids[:, b, lengths[b]:] == 1).all()
            compared += 1


def test_a_later_turn_starts_where_the_last_one_ended():
    items = [Item("text", 5), Item("sounding", frames=333, grid=(5, 2, 3), seconds=0.7), Item("text", 3)]
    ids, following, (length,) = built([items])
    later, later_following, _ = built([items], start=1234)
    np.testing.assert_array_equal(later[:, 0, :length], ids[:, 0, :length] + 1234)
    assert later_following == following + 1234


def test_decoding_goes_on_from_the_greatest_id_when_a_video_outlasts_its_sound():
    items = [Item("text", 1), Item("sounding", frames=40, grid=(2, 1, 1), seconds=1.9), Item("text", 1)]
    _, ids, following = plain_tmrope(items)
    assert following == max(max(i) for i in ids) + 1 > ids[-1][0] + 1
    assert built([items])[1][0] == following


def test_time_ids_are_float32():
    """Two thirds of a second a frame pair is one of the layouts where float64 truncates to another id."""
    fps = next(fps for fps in np.arange(1.0, 12.0, 0.01)
               if any(int(t * np.float64(2 / fps) * 25) != int(np.float32(t) * np.float32(2 / fps) * np.float32(25))
                      for t in range(12)))
    items = [Item("text", 1), Item("video", grid=(12, 1, 1), seconds=2 / fps), Item("text", 1)]
    ids, _, (length,) = built([items])
    np.testing.assert_array_equal(ids[:, 0, :length].T, plain_tmrope(items)[1])


def test_a_long_prompt_takes_milliseconds():
    items = [Item("text", 20), Item("sounding", frames=60000, grid=(300, 5, 7), seconds=1.0), Item("text", 20)]
    tokens = plain_tmrope(items)[0]
    tokens = [1] * (32768 - len(tokens)) + tokens
    grid, seconds = vision_tables([items])
    arguments = (*pad([tokens]), grid, seconds, np.zeros(1, np.int32))
    fast = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}  # as users have it
    compiled = build.lower(*arguments).compile(compiler_options=fast)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - started)
    print(f"TMRoPE ids of a 32,768-token prompt: {1e3 * min(times):.2f} ms, the least of {len(times)} warm runs")
    assert min(times) < 0.010, f"{1e3 * min(times):.1f} ms"
