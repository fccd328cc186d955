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


def sliced(config: OmniConfig, layers: int, vocabulary: int | None) -> dict[str, Any]:
    """config.json cut to `layers` of each network (of vision, the last sees whole frames) and to a vocabulary, at whose
    end the special tokens then stand. Raises OmniError."""
    data = copy.deepcopy(config.without_speech().source)
    thinker = data.get("thinker_config", data)
    if layers:
        thinker["text_config"]["num_hidden_layers"] = thinker["audio_config"]["encoder_layers"] = layers
        thinker["vision_config"] |= {"depth": layers, "fullatt_block_indexes": [layers - 1]}
    if vocabulary:
        special = sorted({value for key, value in thinker.items() if key.endswith(("_token_id", "_token_index"))})
        if vocabulary < 256 + len(special):
            raise OmniError(f"--vocabulary {vocabulary}: is below {256 + len(special)}, bytes and special tokens")
        moved = {token: vocabulary - len(special) + i for i, token in enumerate(special)}
        thinker |= {key: moved[value] for key, value in thinker.items() if key.endswith(("_token_id", "_token_index"))}
        thinker["text_config"]["vocab_size"] = vocabulary
    return data


@contextlib.contextmanager
def random_model(path: Path, layers: int, vocabulary: int | None) -> Iterator[str]:
    """The directory of a random checkpoint of a configuration, for as long as it is needed."""
    config = OmniConfig.load(path)
    with tempfile.TemporaryDirectory() as directory:
        cut = Path(directory) / "config.json"
        cut.write_text(json.dumps(sliced(config, layers, vocabulary)))
        random_checkpoint.main([str(cut), str(Path(directory) / "model")])
        yield str(Path(directory) / "model")
