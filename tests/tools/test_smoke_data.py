import json

import pytest

from omni_jax.errors import OmniError
from tools import smoke_data


def test_held_out_combinations_are_new_and_their_answers_known():
    for kind, axes in smoke_data.KINDS.items():
        train, held_out = smoke_data.split(kind)
        assert not set(train) & set(held_out) and 0.1 < len(held_out) / (len(train) + len(held_out)) < 0.4
        for i, axis in enumerate(axes):
            assert {example[i] for example in train} == set(axis)
    assert {a + b for task, a, b in smoke_data.split("texts")[0] if task == "add"} == set(range(19))


def test_the_same_seed_makes_the_same_data(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        told = smoke_data.main([str(tmp_path / name), "--train", "8", "--held-out", "4", "--seed", str(seed)])
    assert told["train"] == 8
    files = {name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
             for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    records = [json.loads(line) for line in (tmp_path / "a" / "train.jsonl").read_text().splitlines()]
    assert [record["kind"] for record in records] == 2 * list(smoke_data.KINDS)
    with pytest.raises(OmniError):
        smoke_data.main([str(tmp_path / "d"), "--train", "2"])
