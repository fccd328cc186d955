"""Random checkpoints of a configuration cut to few layers and a small vocabulary: true widths in little memory."""

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_jax import OmniError
from omni_jax.config import OmniConfig
from tools import random_checkpoint


def sliced(config: OmniConfig, layers: int, vocabulary: int | None, speech: bool = False) -> dict[str, Any]:
    """config.json cut to `layers` of each network but Token2Wav (of vision, the last sees whole frames) and to a
    vocabulary, at whose end the special tokens then stand; without speech, if it is not wanted. Raises OmniError."""
    data = copy.deepcopy((config if speech else config.without_speech()).source)
    thinker, talker = data.get("thinker_config", data), data.get("talker_config") or {}
    if layers and talker:
        talker["num_hidden_layers"] = layers
    if layers:
        thinker["text_config"]["num_hidden_layers"] = thinker["audio_config"]["encoder_layers"] = layers
        thinker["vision_config"] |= {"depth": layers, "fullatt_block_indexes": [layers - 1]}
    if vocabulary:
        special = sorted({*_special(thinker).values(), *_special(talker).values()})
        if vocabulary < 256 + len(special):
            raise OmniError(f"--vocabulary {vocabulary}: is below {256 + len(special)}, bytes and special tokens")
        moved = {token: vocabulary - len(special) + i for i, token in enumerate(special)}
        for part in (thinker, talker):
            part |= {key: moved[value] for key, value in _special(part).items()}
        thinker["text_config"]["vocab_size"] = vocabulary
    return data


def _special(part: dict[str, Any]) -> dict[str, int]:
    """The ids of the Thinker's vocabulary that a part of config.json names."""
    return {key: value for key, value in part.items()
            if key.endswith(("_token_id", "_token_index")) and not key.startswith("tts_codec_")}


@contextlib.contextmanager
def random_model(path: Path, layers: int, vocabulary: int | None, speech: bool = False) -> Iterator[str]:
    """The directory of a random checkpoint of a configuration, for as long as it is needed."""
    config = OmniConfig.load(path)
    with tempfile.TemporaryDirectory() as directory:
        cut = Path(directory) / "config.json"
        cut.write_text(json.dumps(sliced(config, layers, vocabulary, speech)))
        random_checkpoint.main([str(cut), str(Path(directory) / "model")])
        yield str(Path(directory) / "model")
