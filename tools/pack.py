"""Writes a checkpoint to give away: its weights in half the bytes, and where wanted its Thinker alone.

OUT is a Hugging Face directory, which omni_jax and transformers load, and is written whole or not at all. Tokenizer,
settings and voices come along; the networks beside a checkpoint that only training needs, such as the codec encoder, do
not.

Example:
  python -m tools.pack out/tiny/perceive_model omni-tiny --dtype float16 --no-speech
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights import Tensor, find_speakers, match, ordered_tensors, read_tensors, save_huggingface
from tools._cli import parser, run


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("source", type=Path, metavar="IN", help="a Hugging Face directory or a store")
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="of the weights")
    made.add_argument("--no-speech", action="store_true", help="leave Talker, Token2Wav and voices behind")
    arguments = made.parse_args(argv)
    source, out, started = arguments.source, arguments.out, time.perf_counter()
    if not source.is_dir():
        raise OmniError(f"{source}: is not a directory; give the directory of a checkpoint")
    config = OmniConfig.load(source)
    tensors = list(ordered_tensors(match(read_tensors(source, config), config, source)))
    speakers = find_speakers(source)
    if arguments.no_speech:
        config, speakers = config.without_speech(), {}
        tensors = [tensor for tensor in tensors if tensor.name.startswith(config.thinker_prefix)]
    tensors = [cast(tensor, jnp.dtype(arguments.dtype)) for tensor in tensors]
    config = dataclasses.replace(config, source={**config.source, "torch_dtype": arguments.dtype})
    save_huggingface(out, config, tensors, speakers, companions=source, progress=True)
    return {"directory": str(out), "tensors": len(tensors), "bytes": sum(tensor.nbytes for tensor in tensors),
            "speakers": list(speakers), "seconds": round(time.perf_counter() - started, 2)}


def cast(tensor: Tensor, dtype: np.dtype) -> Tensor:
    """The same tensor in another type. Loading it raises OmniError where a value is beyond that type's range."""
    return dataclasses.replace(tensor, dtype=dtype, load=functools.partial(_cast, tensor, dtype))


def _cast(tensor: Tensor, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = tensor.load().astype(dtype)
    if not np.isfinite(array).all():
        raise OmniError(f"{tensor.file}: tensor {tensor.name} has values beyond the range of {dtype}; give another "
                        "--dtype")
    return array


if __name__ == "__main__":
    run(main)
