"""Asks a model: text, pictures, sounds and videos in the order given, the answer on standard output.

    python -m tools.generate --model out/random --text "What is this?" --image omni_jax/assets/samples/picture.jpg
    python -m tools.generate --model M --system "Be brief." --video clip.mp4 --use-audio-in-video --stream
"""

import argparse
import sys
from typing import Any

import omni_jax
from omni_jax import OmniError
from tools import _cli


class Content(argparse.Action):
    """Appends {"type": flag, flag: value} to one list, so that the order on the command line is kept."""

    def __call__(self, parser, namespace, value, option=None):
        kind = option.removeprefix("--")
        namespace.content = [*(namespace.content or []), {"type": kind, kind: value}]


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    parser = _cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint directory")
    parser.add_argument("--system", help="the system message (left out: the chat template's own)")
    for kind, word in (("text", "T"), ("image", "P"), ("audio", "P"), ("video", "P")):
        parser.add_argument(f"--{kind}", action=Content, dest="content", metavar=word, help=f"{kind}; repeatable")
    parser.add_argument("--use-audio-in-video", action="store_true", help="hear the videos as well")
    parser.add_argument("--max-new-tokens", type=int, default=1024, metavar="N")
    for name in ("temperature", "top-p", "repetition-penalty"):
        parser.add_argument(f"--{name}", type=float, metavar="X", help="left out: as generation_config.json says")
    parser.add_argument("--top-k", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--mesh", help='as in "data=1,fsdp=1,model=4"; left out: all devices, shared out by itself')
    parser.add_argument("--dtype", help="bfloat16 or float32; left out: bfloat16 on accelerators, float32 on a CPU")
    parser.add_argument("--stream", action="store_true", help="print the answer as it comes")
    arguments = parser.parse_args(argv)
    if not arguments.content:
        raise OmniError("nothing to ask: give --text, --image, --audio or --video")
    if arguments.stream and arguments.json:
        raise OmniError("--stream prints text as it comes and --json one object: choose one")
    return ask(arguments)


def ask(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Loads, generates; returns the summary, or prints the stream."""
    conversation: list[dict[str, Any]] = [{"role": "user", "content": arguments.content}]
    if arguments.system is not None:
        conversation.insert(0, {"role": "system", "content": arguments.system})
    names = ("use_audio_in_video", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
    options = {name: getattr(arguments, name) for name in names}
    omni = omni_jax.load(arguments.model, mesh=arguments.mesh, dtype=arguments.dtype, progress=sys.stderr.isatty())
    if arguments.stream:
        for chunk in omni.stream(conversation, **options):
            print(chunk.text, end="", flush=True)
        print()
        return None
    reply = omni.generate(conversation, **options)
    if not arguments.json:
        print(reply.text)
        return None
    return {"text": reply.text, "token_ids": reply.token_ids, "timings": reply.timings}


if __name__ == "__main__":
    _cli.run(main)
