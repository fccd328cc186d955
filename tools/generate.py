"""Asks a model: text, pictures, sounds and videos in the order given, the answer on standard output and as sound.

    python -m tools.generate --model omni-tiny --image omni_jax/assets/samples/butterfly.jpg --text "What do you see?"
    python -m tools.generate --model M --system "Be brief." --video clip.mp4 --use-audio-in-video --out reply.wav
    python -m tools.generate --model M --text "Tell me a story." --stream --out - | aplay -f S16_LE -r 24000
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import omni_jax
from omni_jax import AudioChunk, OmniError, TextChunk
from tools import _cli
from tools._options import add_device_options
from tools._sound import STANDARD_OUTPUT, check_out, sink, write_wav
from tools._speaking import add_talker_options

OPTIONS = ("use_audio_in_video", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed",
           "speaker", "solve", "solver_steps", "talker_max_new_tokens", "talker_temperature", "talker_top_p",
           "talker_top_k", "talker_repetition_penalty")


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
    add_device_options(parser)
    parser.add_argument("--out", metavar="FILE",
                        help="speak, and where the sound goes: a WAV file, or - for standard output (raw 16-bit "
                        "samples, mono, 24 kHz; the text then goes to standard error)")
    add_talker_options(parser)
    parser.add_argument("--stream", action="store_true", help="give text and sound as they come")
    arguments = parser.parse_args(argv)
    if not arguments.content:
        raise OmniError("nothing to ask: give --text, --image, --audio or --video")
    if arguments.stream and arguments.json:
        raise OmniError("--stream prints text as it comes and --json one object: choose one")
    if arguments.json and arguments.out == STANDARD_OUTPUT:
        raise OmniError("--out - and --json both want standard output: choose one")
    check_out(arguments.out)
    return ask(arguments)


def ask(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Loads, generates; returns the summary, or prints what comes."""
    conversation: list[dict[str, Any]] = [{"role": "user", "content": arguments.content}]
    if arguments.system is not None:
        conversation.insert(0, {"role": "system", "content": arguments.system})
    options = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    spoken, shown = bool(arguments.out or arguments.speaker), sys.stderr.isatty()
    omni = omni_jax.load(arguments.model, mesh=arguments.mesh, dtype=arguments.dtype, speech=spoken, progress=shown)
    if arguments.stream:
        return stream(omni.stream(conversation, return_audio=spoken, **options), arguments.out)
    reply = omni.generate(conversation, return_audio=spoken, progress=shown, **options)
    if arguments.out == STANDARD_OUTPUT:
        with sink(arguments.out) as play:
            play(reply.waveform)
    elif arguments.out:
        write_wav(arguments.out, reply.waveform)
    if not arguments.json:
        print(reply.text, file=sys.stderr if arguments.out == STANDARD_OUTPUT else sys.stdout)
        return None
    codes = None if reply.codes is None else reply.codes.tolist()
    return {"text": reply.text, "token_ids": reply.token_ids, "codes": codes, "out": arguments.out,
            "timings": reply.timings}


def stream(chunks: Iterator[TextChunk | AudioChunk], out: str | None) -> None:
    """Text and sound as they come."""
    printed = sys.stderr if out == STANDARD_OUTPUT else sys.stdout
    with sink(out) as play:
        for chunk in chunks:
            if isinstance(chunk, TextChunk):
                print(chunk.text, end="", flush=True, file=printed)
            else:
                play(chunk.waveform)
    print(file=printed)


if __name__ == "__main__":
    _cli.run(main)
