"""A small data set and the run that learns it."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from omni_jax.config import OmniConfig
from omni_jax.data.processor import Processor
from omni_jax.training.config import DataConfig, MediaBudget, OptimizerConfig, Source, TrainConfig
from omni_jax.weights.random_text import write_text_files
from tests import tiny
from tools import smoke_data

COLOURS = {"red": (200, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 200), "white": (250, 250, 250)}


def say(*content: object, answer: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": list(content)},
                                    {"role": "assistant", "content": answer}]}) + "\n"


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """Colours to name, tones to count, and words to repeat: 24 conversations."""
    directory = tmp_path_factory.mktemp("manifest")
    lines = []
    for i in range(8):
        name = list(COLOURS)[i % 4]
        Image.new("RGB", (40, 40 + i), COLOURS[name]).save(directory / f"{i}.png")
        lines += [say({"type": "image", "image": f"{i}.png", "min_pixels": 784, "max_pixels": 3200}, "Colour?",
                      answer=f"It is {name}."), say(f"Say {name} {i}.", answer=f"{name} {i}")]
        import soundfile

        sound = np.sin(np.arange(6000 + 500 * i) / 10).astype(np.float32) * 0.3
        soundfile.write(directory / f"{i}.wav", sound, 16000)
        lines.append(say({"type": "audio", "audio": f"{i}.wav"}, answer=f"{i} beeps"))
    path = directory / "train.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def run(checkpoint_7b, manifest):
    """Full-parameter tuning in float32, a few steps of four packed rows."""
    media = MediaBudget(audio_blocks=8, frame_pairs=((4, 8),), pictures=6)
    data = DataConfig((Source(str(manifest)),), (Source(str(manifest)),), length=192, media=media, window=16)
    return TrainConfig(str(checkpoint_7b), data, optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
                       steps=6, batch_size=4, dtype="float32", mesh="", remat="none", eval_every=3, eval_batches=2,
                       checkpoint_every=2, z_loss=1e-4)


@pytest.fixture(scope="session")
def processor(tmp_path_factory):
    """Of the checkpoint shaped like the 7B, without its weights: text is tokenised byte by byte."""
    config = OmniConfig.from_json(tiny.config("7b"))
    directory = tmp_path_factory.mktemp("text")
    write_text_files(directory, config)
    return Processor.load(directory, config)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The data set of tools.smoke_data, a few examples of each kind."""
    directory = tmp_path_factory.mktemp("data") / "smoke"
    smoke_data.main([str(directory), "--train", "48", "--held-out", "20"])
    return directory


def changed(run: TrainConfig, **fields: object) -> TrainConfig:
    return dataclasses.replace(run, **fields)
