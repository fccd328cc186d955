import json
import subprocess
import sys

import pytest

from omni_jax.config import OmniConfig
from tests import tiny
from tools import _measure
from tools._slices import sliced

SPREAD = {"median", "low", "high"}


def run(*arguments):
    command = [sys.executable, "-m", "tools.benchmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_json_of_a_small_model(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny.config("7b")))
    done = run("--config", config, "--layers", 2, "--repeats", 1, "--parts", "decode", "audio", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["dtype"] == "float32" and summary["threads"] >= 1
    assert set(summary["peaks"]) == {"matmul", "read"}
    decode, audio = summary["rows"]
    for row, kind in ((decode, "read"), (audio, "matmul")):
        assert row["rounds"] == 1 and row["difference"] <= 1e-4 and row["peak_kind"] == kind
        for name in ("ours", "reference", "ratio", "peak", "ours_share", "reference_share"):
            assert set(row[name]) == SPREAD and row[name]["median"] > 0, name
        assert row["ratio"]["median"] == pytest.approx(row["ours"]["median"] / row["reference"]["median"])
        assert row["ours_share"]["median"] == pytest.approx(
            row["ours_giga_per_second"]["median"] / row["peak"]["median"])


@pytest.mark.parametrize("arguments, sentence", [
    (["a", "--config", "b"], "not both"),
    (["--threads", "0"], "--threads 0"),
    (["--config", "nowhere.json"], "nowhere.json"),
])
def test_errors_are_one_sentence(arguments, sentence):
    done = run(*arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert sentence in done.stderr.splitlines()[-1]


def test_slices_keep_widths():
    whole = OmniConfig.from_json(tiny.config("7b"))
    cut = OmniConfig.from_json(sliced(whole, 2, 300)).thinker_config
    assert cut.text_config.hidden_size == whole.thinker_config.text_config.hidden_size
    assert (cut.text_config.num_hidden_layers, cut.audio_config.encoder_layers, cut.vision_config.depth) == (2, 2, 2)
    assert cut.vision_config.fullatt_block_indexes == (1,)
    assert cut.text_config.vocab_size == 300 and cut.video_token_index == 299 and cut.pad_token_id == 290


def test_rounds_alternate_and_ratios_are_pairwise():
    order = []
    sides = {name: _measure.Side(lambda name=name: order.append(name)) for name in "ab"}
    times = _measure.rounds(sides, 5, budget=0)
    assert order == ["a", "b"] * _measure.FEWEST_ROUNDS and len(times["a"]) == _measure.FEWEST_ROUNDS
    assert _measure.ratio([2, 9, 8], [1, 3, 2]) == _measure.Spread(3, 2, 4)
