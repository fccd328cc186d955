"""Batches for tests of training, made from conversations of the parity tool without the data pipeline."""

import jax
import numpy as np

from omni_jax.data.batch import Prompt, collate
from omni_jax.training.batch import TrainBatch
from tools.parity import SAMPLES


def conversations() -> list[list[dict]]:
    """Text, a picture, sound, and a video with its sound."""
    noise = np.random.default_rng(3).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    video = {"type": "video", "video": str(SAMPLES / "video.mp4"), "fps": 2, "max_frames": 4, "min_pixels": 9 * 784,
             "max_pixels": 16 * 784}
    sound = np.random.default_rng(4).normal(0, 0.1, 16000 * 3).astype(np.float32)
    ask = lambda *content: [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "Yes, it is."}]
    return [ask("What is the time in Lima?"), ask({"type": "image", "image": noise}, "Which?"),
            ask({"type": "audio", "audio": sound}, "Who speaks?"), ask(video, "What happens?")]


def prompts(omni) -> list[Prompt]:
    return [omni.prompt(each, use_audio_in_video=True) for each in conversations()]


def batch(omni, own: list[Prompt]) -> TrainBatch:
    """One prompt a row, [1, B, T]; the loss weighs tokens by chance."""
    rows = collate(own, omni.config)
    segments = (np.arange(rows.token_ids.shape[1]) < rows.lengths[:, None]).astype(np.int32)
    weights = np.random.default_rng(5).integers(0, 3, segments.shape).astype(np.float32) * segments
    found = TrainBatch(rows.token_ids, segments, weights, rows.vision_grid, rows.seconds_per_grid, rows.audio,
                       rows.vision)
    return jax.tree.map(lambda x: x[None], found)
