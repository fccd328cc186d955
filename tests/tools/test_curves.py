"""The picture of several runs' losses."""

import json

import pytest
from PIL import Image

from omni_jax import OmniError
from tools import curves


def run(folder, losses, held_out):
    folder.mkdir()
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    rows[-1]["held_out/loss"] = held_out
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_runs_are_drawn_in_rows_of_panels(tmp_path):
    runs = [run(tmp_path / f"run{number}", [3.0, 2.0, 1.0], 2.0) for number in range(5)]
    sizes = []
    for own in (runs[:4], runs):
        told = curves.main([*own, "--out", str(tmp_path / "losses.png")])
        assert told["bytes"] == (tmp_path / "losses.png").stat().st_size < 60_000
        picture = Image.open(tmp_path / "losses.png")
        assert len(picture.getcolors()) == curves.COLOURS
        sizes.append(picture.size)
    assert sizes[1][0] == sizes[0][0] and sizes[1][1] == 2 * sizes[0][1]


def test_runs_of_one_name_have_a_panel_each(tmp_path):
    sizes = []
    for parts in (4, 5):
        runs = []
        for number in range(parts):
            (tmp_path / f"{parts}-{number}").mkdir()
            runs.append(run(tmp_path / f"{parts}-{number}" / "same", [3.0, 2.0], 2.0))
        curves.main([*runs, "--out", str(tmp_path / "losses.png")])
        sizes.append(Image.open(tmp_path / "losses.png").size)
    assert sizes[1][1] == 2 * sizes[0][1]


def test_a_run_without_steps_is_one_sentence(tmp_path):
    with pytest.raises(OmniError, match=r"nothing/metrics\.jsonl: has no step; give the working directory of a run"):
        curves.main([str(tmp_path / "nothing"), "--out", str(tmp_path / "losses.png")])
    assert not (tmp_path / "losses.png").exists()
