"""Converts a checkpoint: a Hugging Face directory to our own store, or our own store to a Hugging Face directory.

The direction is seen from IN. Types and bytes of all tensors stay as they are, those of the speaking networks and the
voices included. OUT is written whole or not at all.

Example:
  python -m tools.convert Qwen2.5-Omni-7B qwen-7b         # Hugging Face -> store
  python -m tools.convert qwen-7b Qwen2.5-Omni-7B-again   # store -> Hugging Face
"""

import time
from pathlib import Path

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights import find_speakers, is_store, match, ordered_tensors, read_tensors, save_huggingface, save_store
from omni_jax.weights.export import MAX_SHARD_SIZE
from tools._cli import parser, run, size


def main(argv: list[str] | None = None) -> dict:
    arguments = _parser().parse_args(argv)
    source, out, started = arguments.source, arguments.out, time.perf_counter()
    if not source.is_dir():
        raise OmniError(f"{source}: is not a directory; give the directory of a checkpoint")
    config = OmniConfig.load(source)
    matched = match(read_tensors(source, config), config, source)
    tensors = list(ordered_tensors(matched))
    speakers = find_speakers(source)
    if is_store(source):
        save_huggingface(out, config, tensors, speakers, companions=source,
                         max_shard_size=arguments.max_shard_size, progress=True)
    else:
        save_store(out, config, matched, speakers, companions=source, progress=True)
    return {"directory": str(out), "layout": "huggingface" if is_store(source) else "store", "tensors": len(tensors),
            "bytes": sum(tensor.nbytes for tensor in tensors),
            "speakers": list(speakers), "seconds": round(time.perf_counter() - started, 2)}


def _parser():
    made = parser(__doc__)
    made.add_argument("source", type=Path, metavar="IN", help="a Hugging Face directory or a store")
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--max-shard-size", type=size, default=MAX_SHARD_SIZE,
                      help="of Hugging Face weight files, e.g. 500MB (default 2GB)")
    return made


if __name__ == "__main__":
    run(main)
