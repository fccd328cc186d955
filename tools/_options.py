"""Options that several commands share, and what their values must be."""

import argparse

from omni_jax.errors import require
from omni_jax.training.readers import READERS


def add_manifest_options(parser: argparse.ArgumentParser, of: str) -> None:
    """--manifest, --form, --limit and --max-broken; `of` says of what a manifest has many."""
    parser.add_argument("--manifest", required=True, metavar="FILE", help="JSONL, a conversation a line")
    parser.add_argument("--form", choices=tuple(READERS), default="messages",
                        help="of the manifest: Qwen's messages, LLaMA-Factory's sharegpt or ms-swift's")
    parser.add_argument("--limit", type=int, metavar="N", help=f"only the first N {of}")
    parser.add_argument("--max-broken", type=float, default=0.01, metavar="X",
                        help=f"share of the {of} that may be broken (0.01)")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """--mesh and --dtype, as `omni_jax.load` takes them."""
    parser.add_argument("--mesh", help='as in "data=1,fsdp=1,model=4"; left out: all devices, shared out by itself')
    parser.add_argument("--dtype", help="bfloat16 or float32; left out: bfloat16 on accelerators, float32 on a CPU")


def check_options(arguments: argparse.Namespace, **lowest: int) -> None:
    """That --limit, --talker-max-new-tokens and the options in `lowest` are no less than 1 or that, where they are
    given, and --max-broken is a share. Raises OmniError."""
    for name, least in {"limit": 1, "talker_max_new_tokens": 1, **lowest}.items():
        value = getattr(arguments, name)
        require(value is None or value >= least, f"--{name.replace('_', '-')}", f"{value} must be {least} or more")
    require(0 <= arguments.max_broken <= 1, "--max-broken", f"{arguments.max_broken} must lie from 0 to 1")
