"""Writes a random checkpoint of any config.json in Hugging Face layout: weights, voices and a byte-level tokenizer.

The same seed gives the same weights, whatever the shard size.

Example:
  python -m tools.random_checkpoint config.json /tmp/random --seed 1 --dtype bfloat16
"""

import time
from pathlib import Path

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.weights.export import MAX_SHARD_SIZE, save_huggingface
from omni_jax.weights.files import size_text
from omni_jax.weights.random_init import random_speakers, random_tensors
from omni_jax.weights.random_text import read_ranks, write_text_files
from tools._cli import parser, run, size


def main(argv: list[str] | None = None) -> dict:
    arguments = _parser().parse_args(argv)
    started = time.perf_counter()
    config = OmniConfig.load(arguments.config)
    if not arguments.gain > 0:
        raise OmniError(f"--gain {arguments.gain} must be positive; try 1")
    ranks = read_ranks(arguments.ranks) if arguments.ranks else ()
    tensors = list(random_tensors(config, arguments.seed, arguments.dtype, arguments.gain))
    whole_model = bool(config.thinker_prefix)
    files = save_huggingface(
        arguments.out, config, tensors, speakers=random_speakers(config, arguments.seed) if whole_model else None,
        write_companions=lambda directory: write_text_files(directory, config, ranks),
        max_shard_size=arguments.max_shard_size, progress=True,
    )  # fmt: skip
    return {"directory": str(arguments.out), "parameters": sum(t.nbytes // t.dtype.itemsize for t in tensors),
               "size": size_text(sum(t.nbytes for t in tensors)), "dtype": arguments.dtype, "seed": arguments.seed,
               "weight_files": len(files), "seconds": round(time.perf_counter() - started, 2)}


def _parser():
    made = parser(__doc__)
    made.add_argument("config", type=Path, metavar="CONFIG", help="a config.json, or a directory that holds one")
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    made.add_argument("--ranks", type=Path, metavar="FILE", help="a tiktoken file: the tokenizer has its first tokens")
    made.add_argument("--gain", type=float, default=1.5,
                      help="weights' standard deviation times sqrt(fan_in); higher varies more (default 1.5)")
    made.add_argument("--max-shard-size", type=size, default=MAX_SHARD_SIZE, help="e.g. 500MB (default 2GB)")
    return made


if __name__ == "__main__":
    run(main)
