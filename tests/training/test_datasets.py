import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from omni_jax.errors import OmniError
from omni_jax.training.config import DataConfig, MediaBudget, Source, TrainConfig
from omni_jax.training.datasets import held_out_batches, train_batches
from tests.data.media_files import one_sentence

MEDIA = MediaBudget(audio_blocks=6, frame_pairs=((1, 12),), pictures=4)


@pytest.fixture(scope="module")
def config(smoke):
    """All kinds, packed: two micro-batches of two rows; one line of the texts is broken."""
    texts = (smoke / "train_texts.jsonl").read_text()
    (smoke / "train_mostly.jsonl").write_text(texts + "{\n")
    sources = [tuple(Source(str(smoke / f"{part}_{kind}.jsonl")) for kind in ("pictures", "sounds", "videos", "texts"))
               for part in ("train", "held_out")]
    sources[0] = (*sources[0][:3], Source(str(smoke / "train_mostly.jsonl")))
    data = DataConfig(*sources, length=400, media=MEDIA, window=8, use_audio_in_video=True, max_broken=0.1)
    return TrainConfig("none", data, batch_size=4, accumulate=2, eval_batches=100)


def one_by_one(config, *manifests, **fields):
    """Batches of a single example, in the order of the stream."""
    data = dataclasses.replace(config.data, train=manifests, pack=False, window=1)
    return dataclasses.replace(config, data=dataclasses.replace(data, **fields), batch_size=1, accumulate=1)


def with_data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def take(batches, n):
    taken = list(itertools.islice(batches, n))
    batches.close()
    return taken


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.names, a.counts, a.totals) == (b.names, b.counts, b.totals)
        jax.tree.map(np.testing.assert_array_equal, a.arrays, b.arrays)


@pytest.fixture(scope="module")
def steps(config, processor):
    """Six steps and the state after each."""
    batches = train_batches(config, processor)
    states, loaded = [], []
    for _ in range(6):
        loaded.append(next(batches))
        states.append(json.dumps(batches.get_state()))
    batches.close()
    assert 0 < loaded[1].totals["broken"] <= loaded[-1].totals["broken"]
    return loaded, states


@pytest.mark.parametrize("at", [0, 2, 4])
def test_resumes_exactly(config, processor, steps, at):
    """Also with a state given to batches that are already running."""
    loaded, states = steps
    batches = train_batches(config, processor)
    if at == 2:
        next(batches)
    batches.set_state(json.loads(states[at]))
    assert_same(take(batches, 5 - at), loaded[at + 1 :])


def test_workers_change_nothing(config, processor, steps):
    """They go on from a state without workers, and their state serves a run without."""
    loaded, states = steps
    batches = train_batches(with_data(config, workers=2), processor)
    batches.set_state(json.loads(states[1]))
    assert_same([next(batches), next(batches)], loaded[2:4])
    assert batches.get_state() == json.loads(states[3])
    batches.close()


def test_other_manifests_do_not_go_on(config, processor, steps):
    batches = train_batches(with_data(config, train=config.data.train[:3]), processor)
    with pytest.raises(OmniError) as error:
        batches.set_state(json.loads(steps[1][0]))
    one_sentence(error, "data", "49 examples", "36", "new run")
    batches.close()


def test_the_budget_holds_and_the_shapes_stay(config, processor, steps):
    loaded, _ = steps
    shapes = {tuple(x.shape for x in jax.tree.leaves(each.arrays)) for each in loaded}
    assert len(shapes) == 1 and loaded[0].arrays.token_ids.shape == (2, 2, 400)
    for each in loaded:
        arrays, learnt = each.arrays, each.counts["learnt_tokens"]
        assert each.counts["tokens"] == (arrays.segments > 0).sum() and learnt == arrays.weights.sum() > 0
        assert each.counts["examples"] == len(each.names) == arrays.segments.max(-1).sum()
        media = np.isin(arrays.token_ids, [259, 264, 265]).sum()  # see tests.tiny: audio, image, video
        assert media == sum((g.destination < 800).sum() for g in (*arrays.audio, *arrays.vision))
    fill = sum(each.counts["tokens"] for each in loaded) / (6 * 1600)
    assert fill > 0.8  # rows are mostly full
    assert loaded[-1].totals["tokens"] == sum(each.counts["tokens"] for each in loaded)


def test_another_seed_is_another_order(config, processor, steps):
    other = take(train_batches(dataclasses.replace(config, seed=1), processor), 1)
    assert sorted(other[0].names) != sorted(steps[0][0].names)


def test_epochs_are_shuffled_anew_and_shards_share_them(config, processor, smoke):
    alone = one_by_one(config, Source(str(smoke / "train_texts.jsonl")))  # 12 examples
    names = [each.names[0] for each in take(train_batches(alone, processor), 24)]
    assert len(set(names[:12])) == 12 and set(names[:12]) == set(names[12:]) and names[:12] != names[12:]
    pair = dataclasses.replace(alone, batch_size=2)
    shards = [[each.names[0] for each in take(train_batches(pair, processor, (i, 2)), 6)] for i in range(2)]
    assert [name for both in zip(*shards, strict=True) for name in both] == names[:12]


def test_sources_have_their_shares(config, processor, smoke):
    sources = Source(str(smoke / "train_texts.jsonl"), 3.0), Source(str(smoke / "held_out_texts.jsonl"), 1.0)
    loaded = take(train_batches(one_by_one(config, *sources), processor), 80)
    assert sum("train" in each.names[0] for each in loaded) == 60


def test_a_row_an_example_at_the_smallest_length(config, processor):
    alone = with_data(config, pack=False, lengths=(96, 160))
    loaded = take(train_batches(alone, processor), 6)
    for each in loaded:
        lengths = (each.arrays.segments > 0).sum(-1)
        assert each.arrays.segments.max() == 1 and (lengths > 0).all()
        assert each.arrays.token_ids.shape[-1] == next(n for n in (96, 160, 400) if n >= lengths.max())
    assert len({each.arrays.token_ids.shape for each in loaded}) > 1


def test_held_out(config, processor):
    """Every example once and in one order; with several shards, all take equally many steps."""
    first, again = (list(held_out_batches(config, processor)) for _ in range(2))
    assert_same(first, again)
    names = [name for each in first for name in each.names]
    assert len(names) == len(set(names)) == 20
    assert len(list(held_out_batches(dataclasses.replace(config, eval_batches=1), processor))) == 1
    few = dataclasses.replace(config, eval_batches=5)
    shards = [list(held_out_batches(few, processor, (i, 2))) for i in range(2)]
    assert [len(each) for each in shards] == [5, 5]
    assert sorted(name for shard in shards for each in shard for name in each.names) == sorted(names)
    last = shards[0][-1].arrays
    assert not last.weights.any() and last.token_ids.shape == shards[0][0].arrays.token_ids.shape
    assert list(held_out_batches(with_data(config, held_out=()), processor)) == []


@pytest.fixture(scope="module")
def damaged(smoke):
    """Ten good lines and six broken ones, from line 4 on."""
    ask = lambda *content, answer=({"role": "assistant", "content": "Yes"},): json.dumps(
        [{"role": "user", "content": list(content)}, *answer])
    (smoke / "junk.png").write_bytes(b"junk")
    bad = ['{"messages": [', ask({"type": "image", "image": "none.png"}), ask({"type": "image", "image": "junk.png"}),
           ask("Hi" * 300), ask("Hi", answer=()), ask(*[{"type": "audio", "audio": np.zeros(9).tolist()}])]
    good = [ask(f"{i}?") for i in range(10)]
    path = smoke / "damaged.jsonl"
    path.write_text("\n".join([*good[:3], *bad, *good[3:]]) + "\n")
    return path


def test_broken_examples_are_skipped_counted_and_named(config, processor, damaged, capsys):
    loaded = take(train_batches(one_by_one(config, Source(str(damaged)), max_broken=0.5), processor), 21)
    assert loaded[9].counts["examples"] == 1 and 6 * 2 <= loaded[-1].totals["broken"] <= 6 * 3
    assert not {int(each.names[0].rpartition(":")[2]) for each in loaded} & set(range(4, 10))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 5 and all(line.startswith(f"skipped {damaged}:") for line in told)
    whole = "\n".join(told)
    assert sum(words in whole for words in ("not valid JSON", "no such file", "junk.png", "length of 400",
                                            "no assistant message")) >= 4


def test_too_many_broken_examples_end_the_run(config, processor, damaged):
    batches = train_batches(one_by_one(config, Source(str(damaged)), max_broken=0.2), processor)
    with pytest.raises(OmniError) as error:
        take(batches, 17)
    text = str(error.value)
    assert "6 of 16 examples are broken" in text and "data.max_broken 0.2" in text and f"{damaged}:" in text
    assert "\n" not in text
    with pytest.raises(OmniError, match=r"12 of 12 examples are broken.*data\.media\.pictures is 0"):
        source = Source(str(damaged.parent / "train_pictures.jsonl"))
        take(train_batches(one_by_one(config, source, max_broken=1.0, media=dataclasses.replace(MEDIA, pictures=0)),
                           processor), 1)


@pytest.mark.parametrize(("change", "shards", "words"), [
    ({"train": ()}, 1, ["no manifest"]),
    ({"train": (Source("/nowhere/m.jsonl"),)}, 1, ["/nowhere/m.jsonl", "path"]),
    ({}, 3, ["batch_size 4", "3 processes"]),
    ({"lengths": (500,)}, 1, ["lengths (500,)", "length 400"]),
    ({"pack": False, "lengths": (100,)}, 2, ["lengths (100,)", "pack=True"]),
    ({"window": 0}, 1, ["window 0"])])
def test_bad_settings(config, processor, change, shards, words):
    with pytest.raises(OmniError) as error:
        train_batches(with_data(config, **change), processor, (0, shards))
    one_sentence(error, *words)
