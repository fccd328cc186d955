import json
import subprocess
import sys

import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.config import OmniConfig
from omni_jax.weights.names import rows
from tests import tiny
from tools import _measure, _speech_benchmark, _speech_work
from tools._slices import sliced
from tools.parity import reference_model

SPREAD = {"median", "low", "high"}


def run(*arguments):
    command = [sys.executable, "-m", "tools.benchmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_json_of_a_small_model(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny.config("7b")))
    done = run("--config", config, "--layers", 2, "--repeats", 1, "--parts", "decode", "audio", "train", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["dtype"] == "float32" and summary["threads"] >= 1
    assert set(summary["peaks"]) == {"matmul", "read"}
    decode, audio, train = summary["rows"]
    for row, kind in ((decode, "read"), (audio, "matmul"), (train, "matmul")):
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


def test_slices_keep_token2wav_and_move_the_talkers_ids():
    whole = OmniConfig.from_json(tiny.config("7b", speech=True))
    cut = OmniConfig.from_json(sliced(whole, 2, 300, speech=True))
    assert cut.token2wav_config == whole.token2wav_config and cut.talker_config.num_hidden_layers == 2
    talker, before = cut.talker_config, whole.talker_config
    assert (talker.hidden_size, talker.vocab_size) == (before.hidden_size, before.vocab_size)
    assert talker.tts_codec_start_token_id == before.tts_codec_start_token_id
    assert (talker.tts_text_end_token_id, cut.thinker_config.video_token_index) == (299, 296)


# The speaking half

@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """Both models of one checkpoint."""
    directory = tiny.write_checkpoint(tmp_path_factory.mktemp("speaking") / "model", speech=True, dtype="float32")
    return omni_jax.load(directory, mesh="", dtype="float32"), reference_model(directory)


@pytest.mark.parametrize("part", _speech_benchmark.PARTS)
def test_both_sides_of_a_speaking_network_agree(speaking, part):
    for job in _speech_benchmark.PARTS[part](*speaking):
        assert job.work > 0 and job.kind in ("matmul", "read")
        for _ in range(2):  # and again: a run leaves its side as it was
            results = [side.run(*side.prepare()) for side in (job.ours, job.theirs)]
            assert job.difference(*results) < 1e-4


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(_speech_benchmark, "TOKENS", 6)
    monkeypatch.setattr(_speech_benchmark, "CODES", 70)
    monkeypatch.setattr(_speech_benchmark, "FEW_CODES", 55)


def test_rows_of_a_reply(speaking, short):
    first, whole, few, stages = _speech_benchmark.reply(*speaking, 1)
    assert 0 < first["ours"].median < whole["ours"].median and few["total"].median > 0
    for row in (first, whole):
        assert row["ratio"].median == pytest.approx(row["reference"].median / row["ours"].median)
    pieces = stages["pieces"]
    assert 0 < pieces["36 codes"] < pieces["all codes"] and 0 < pieces["first sound"] < pieces["all sound"]


def test_other_codes_are_not_timed(speaking, short, monkeypatch):
    monkeypatch.setattr(_speech_benchmark, "PENALTY", 1.0)
    ours = _speech_benchmark._greedy
    monkeypatch.setattr(_speech_benchmark, "_greedy", lambda *args: {**ours(*args), "talker_repetition_penalty": 3.0})
    with pytest.raises(OmniError, match="codes differ"):
        list(_speech_benchmark.reply(*speaking, 1))


def test_row_of_a_batch(speaking, short, monkeypatch):
    monkeypatch.setattr(_speech_benchmark, "ROWS", 2)
    row, = _speech_benchmark.batch(*speaking, 1)
    assert row["difference"] <= _speech_benchmark.SAME_WAVE
    assert row["share"].median == pytest.approx(row["total"].median / row["pieces"]["2 single"])


def test_work_is_that_of_the_weights():
    """Each weight of a linear map or a convolution multiplies once per position it is applied at."""
    config = OmniConfig.from_json(tiny.config("7b", speech=True))
    dit, vocoder = config.token2wav_config.dit_config, config.token2wav_config.bigvgan_config
    sizes = {name: int(np.prod(row.file_shape)) for row in rows(config, ["token2wav"]) for name in row.names()
             if name.endswith("weight")}
    part = lambda text: sum(size for name, size in sizes.items() if text in name)
    frames, T, heads = 72, dit.block_size, dit.num_attention_heads * dit.head_dim
    layers = part("transformer_blocks") - part("attn_norm")
    mel = dit.mel_dim * dit.hidden_size
    assert part("proj_out") == mel
    looks = (6 * 3 + 3 * 2) * T * T  # six layers, of which three also look at the other of two neighbouring pairs
    assert _speech_work.dit_flops(dit, 3) == 2 * frames * (2 * layers + 3 * mel) + 2 * 2 * 2 * heads * looks

    work, length = frames * part("conv_pre"), frames
    for stage, rate in enumerate(vocoder.upsample_rates):
        work += length * part(f"ups.{stage}.")
        length *= rate
        work += length * sum(part(f"resblocks.{2 * stage + i}.") for i in range(2))
    assert _speech_work.bigvgan_flops(vocoder, frames) == 2 * (work + length * part("conv_post"))

    once = part("se_block") + part("spk_encoder.fc.")
    assert _speech_work.ecapa_flops(dit, frames) == pytest.approx(
        2 * (frames * (part("spk_encoder") - once) + once), rel=0.1)  # the statistics' columns see one frame


def test_rounds_alternate_and_ratios_are_pairwise():
    order = []
    sides = {name: _measure.Side(lambda name=name: order.append(name)) for name in "ab"}
    times = _measure.rounds(sides, 5, budget=0)
    assert order == ["a", "b"] * _measure.FEWEST_ROUNDS and len(times["a"]) == _measure.FEWEST_ROUNDS
    assert _measure.ratio([2, 9, 8], [1, 3, 2]) == _measure.Spread(3, 2, 4)
