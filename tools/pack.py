"""Writes a checkpoint to give away: its weights in half the bytes, and where wanted its Thinker alone.

OUT is a Hugging Face directory, which omni_jax and transformers load, and is written whole or not at all. Tokenizer,
settings and voices come along; the networks beside a checkpoint that only training needs, such as the codec encoder, do
not: --encoders writes them to a directory of their own, from where they can be copied beside it again. --blend takes
weights between IN's and those of what IN was tuned to: most of what was gained, while less of what IN knew is lost
(WiSE-FT, arXiv 2109.01903); --keep leaves a part of IN as it is.

Example:
  python -m tools.pack out/tiny/perceive_model omni-tiny --dtype float16 --no-speech
"""

import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError, require
from omni_jax.weights import Tensor, beside, find_speakers, match, ordered_tensors, read_tensors, save_huggingface
from omni_jax.weights.files import whole_directory
from omni_jax.weights.safetensors_files import read_file, write_file
from tools._cli import parser, run


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("source", type=Path, metavar="IN", help="a Hugging Face directory or a store")
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="of the weights")
    made.add_argument("--blend", nargs=2, metavar=("OTHER", "SHARE"), help="this share of the way to OTHER's weights")
    made.add_argument("--keep", metavar="PREFIX", help="with --blend: tensors whose names begin so stay as in IN")
    made.add_argument("--encoders", type=Path, metavar="DIR",
                      help="the directory to write what lies beside IN to, in that type as well; it must not exist")
    made.add_argument("--no-speech", action="store_true", help="leave Talker, Token2Wav and voices behind")
    arguments = made.parse_args(argv)
    source, out, started = arguments.source, arguments.out, time.perf_counter()
    if not source.is_dir():
        raise OmniError(f"{source}: is not a directory; give the directory of a checkpoint")
    config = OmniConfig.load(source)
    tensors = list(ordered_tensors(match(read_tensors(source, config), config, source)))
    speakers = find_speakers(source)
    if arguments.encoders:
        require(bool(beside.files(source)), "--encoders", f"no network lies beside {source}")
        require(not arguments.encoders.exists(), f"--encoders {arguments.encoders}", "exists; give a new directory")
    require(not arguments.keep or arguments.blend, "--keep", "goes with --blend")
    if arguments.blend:
        tensors = blended(tensors, Path(arguments.blend[0]), share_of(arguments.blend[1]), config, arguments.keep)
    if arguments.no_speech:
        config, speakers = config.without_speech(), {}
        tensors = [tensor for tensor in tensors if tensor.name.startswith(config.thinker_prefix)]
    tensors = [cast(tensor, jnp.dtype(arguments.dtype)) for tensor in tensors]
    config = dataclasses.replace(config, source={**config.source, "torch_dtype": arguments.dtype})
    save_huggingface(out, config, tensors, speakers, companions=source, write_companions=_without_encoders,
                     progress=True)
    if arguments.encoders:
        _pack_encoders(source, arguments.encoders, jnp.dtype(arguments.dtype))
    return {"directory": str(out), "tensors": len(tensors), "bytes": sum(tensor.nbytes for tensor in tensors),
            "speakers": list(speakers), "seconds": round(time.perf_counter() - started, 2)}


def _without_encoders(directory: Path) -> None:
    for path in beside.files(directory):
        path.unlink()


def _pack_encoders(source: Path, out: Path, dtype: np.dtype) -> None:
    with whole_directory(out) as partial:
        for path in beside.files(source):
            if path.suffix == ".json":
                shutil.copy(path, partial)
            else:
                write_file(partial / path.name, [cast(tensor, dtype) for tensor in read_file(path).values()])


def share_of(text: str) -> float:
    """Raises OmniError unless it is a number from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    require(0 <= share <= 1, "--blend", f"SHARE {text} must be a number from 0 to 1")
    return share


def blended(tensors: Sequence[Tensor], other: Path, share: float, config: OmniConfig,
            keep: str | None = None) -> list[Tensor]:
    """The tensors this share of the way to those of another checkpoint of the same configuration, but for those whose
    names begin with `keep`. Raises OmniError."""
    kept = {tensor.name for tensor in tensors if keep and tensor.name.startswith(keep)}
    require(not keep or bool(kept), f"--keep {keep}", "begins no tensor's name; thinker.visual is one")
    others = {tensor.name: tensor for tensor in ordered_tensors(match(read_tensors(other, config), config, other))}

    def between(tensor: Tensor) -> np.ndarray:
        ours, theirs = (each.load().astype(np.float32) for each in (tensor, others[tensor.name]))
        return ours + np.float32(share) * (theirs - ours)

    return [tensor if tensor.name in kept else dataclasses.replace(tensor, load=functools.partial(between, tensor))
            for tensor in tensors]


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
