"""Whether tuning has broken a checkpoint's speech: how it speaks before and after, over a manifest of speech.

    python -m tools.check_speech Qwen2.5-Omni-7B tuned --manifest speech.jsonl --limit 200
    python -m tools.check_speech BEFORE AFTER --manifest speech.jsonl --recogniser whisper:faster-whisper-large-v3

The Talker hears what the Thinker makes of a conversation, so a tuned Thinker may spoil what it says. Measured are
"nats": the mean cross-entropy of the manifest's codes, each code and end given all before it, where what is said is
given too (objective talker); "ended": the share of the last turns whose text, being said, comes to an end by itself;
and with --recogniser "wer": word errors of this speech over the words of the texts. The manifest's spoken turns need
codes, {"type": "audio", "audio": FILE, "codes": […], "speaker": NAME}: tools.make_codes makes them of recordings, and
tools.speak --say of texts. Ends with status 1 if speech got worse by more than --most.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import grain
import jax
import numpy as np

from omni_jax.data.buckets import bucket
from omni_jax.errors import require
from omni_jax.training import datasets
from omni_jax.training import setup as setups
from omni_jax.training.config import DataConfig, MediaBudget, Source, TrainConfig
from omni_jax.training.forms import form_of
from omni_jax.training.loop import summed
from omni_jax.training.manifests import Line, Manifest
from omni_jax.training.setup import Setup
from omni_jax.training.step import make_eval_step
from tools import _cli, evaluate
from tools._examples import check_broken
from tools._options import add_device_options, add_manifest_options, check_options
from tools._speaking import SPECS, add_talker_options, talker_options

MUCH = 1 << 20  # more than any conversation takes
ROOM = DataConfig((), length=MUCH, speech_length=MUCH, max_broken=0.0, media=MediaBudget(
    audio_blocks=MUCH, frame_pairs=tuple((1 << k, MUCH) for k in range(12)), pictures=MUCH))


def main(argv: list[str] | None = None) -> None:
    parser = _cli.parser(__doc__)
    parser.add_argument("before", metavar="BEFORE", help="the checkpoint's directory before it was tuned")
    parser.add_argument("after", metavar="AFTER", help="and after")
    add_manifest_options(parser, "conversations")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="conversations at a time (4)")
    parser.add_argument("--recogniser", metavar="SPEC", help=f"what writes down the speech: {SPECS}")
    parser.add_argument("--most", type=float, nargs=3, default=(0.05, 0.02, 0.02), metavar=("NATS", "ENDED", "WER"),
                        help="by which speech may get worse: nats as a share of those before, the others as they are "
                             "(0.05 0.02 0.02)")
    add_talker_options(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the codes of speech (0)")
    add_device_options(parser)
    arguments = parser.parse_args(argv)
    _check(arguments)
    told = compare(arguments)
    if arguments.json:
        _cli.show(told, as_json=True)
    else:
        print(table(told))
    require(not told["worse"], arguments.after, f"speaks worse than {arguments.before}: {'; '.join(told['worse'])}; "
            "tune with a lower learning rate, or train the Talker on behind the tuned Thinker")


def _check(arguments: argparse.Namespace) -> None:
    check_options(arguments, batch=1)
    require(min(arguments.most) >= 0, "--most", f"{min(arguments.most)} must not be below 0")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """{"before": {"nats": …, "ended": …, "wer": …}, "after": …, "worse": sentences, …}. Raises OmniError."""
    started, directories = time.perf_counter(), {"before": arguments.before, "after": arguments.after}
    manifest = Manifest(Source(arguments.manifest, form=arguments.form))
    lines = [manifest[index] for index in range(min(len(manifest), arguments.limit or len(manifest)))]
    prepared = {name: setups.prepare(_run(directory, ROOM, arguments)) for name, directory in directories.items()}
    lines, data, broken = fitted(lines, prepared["before"], arguments)
    told: dict[str, Any] = {"conversations": len(lines)}
    for name, directory in directories.items():
        said = evaluate.main(_asked(directory, arguments))["metrics"]
        nats, codes = nats_of(setups.prepare(_run(directory, data, arguments)), lines)
        told |= {name: {"nats": nats, "ended": said["ended"]["value"]}, "codes": codes}
        if arguments.recogniser:
            told[name]["wer"] = said["speech_wer"]["value"]
    return told | {"worse": worse(told["before"], told["after"], arguments.most), "broken": broken,
                   "seconds": round(time.perf_counter() - started, 2)}


def _run(directory: str, data: DataConfig, arguments: argparse.Namespace) -> TrainConfig:
    dtype = arguments.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    # What learns is kept in float32: nothing does here, and the head is small.
    return TrainConfig(directory, data, "talker", train=("talker/codec_head/*",), batch_size=arguments.batch,
                       mesh=arguments.mesh, dtype=dtype, remat="none")


def _asked(directory: str, arguments: argparse.Namespace) -> list[str]:
    """The command line of tools.evaluate that has the last turns said."""
    given = {name: getattr(arguments, name) for name in ("manifest", "form", "limit", "batch", "recogniser", "speaker",
                                                         "seed", "max_broken", "mesh", "dtype")}
    given |= talker_options(arguments) | {"model": directory, "metrics": "ended"}
    if arguments.recogniser:
        given["metrics"] += ",speech_wer"
    return ["--say", "--json", *(word for name, value in given.items() if value is not None
                                 for word in (f"--{name.replace('_', '-')}", str(value)))]


def fitted(lines: Sequence[Line], setup: Setup,
           arguments: argparse.Namespace) -> tuple[list[Line], DataConfig, dict[str, str]]:
    """The lines that can be learnt from, shapes that hold batches of them, and what is wrong with the others: {where:
    sentence}. Raises OmniError if too many are broken."""
    form = form_of("spoken", setup.plan.run, setup.processor)
    items = [datasets.read(form, (line, 0)) for line in lines]
    broken = {item.name: item.problem for item in items if item.problem}
    check_broken(broken, len(lines), arguments.max_broken)
    kept = [line for line in lines if line.name not in broken]
    require(bool(kept), arguments.manifest, "has no conversation that can be used; mend those that are broken")
    tokens, pictures, steps, blocks, *pairs = np.max([item.read.cost for item in items if item.read], axis=0).tolist()
    classes = [bins for bins, _ in ROOM.media.frame_pairs]
    media = MediaBudget(blocks * arguments.batch, pictures=pictures, frame_pairs=tuple(
        (bins, most * arguments.batch) for bins, most in zip(classes, pairs, strict=True) if most))
    return kept, dataclasses.replace(ROOM, length=bucket(tokens, 128), speech_length=bucket(steps, 128),
                                     media=media), broken


def nats_of(setup: Setup, lines: Sequence[Line]) -> tuple[float, int]:
    """(the mean cross-entropy of a code, how many codes and ends there are) of the checkpoint. Raises OmniError."""
    plan = setup.plan
    stream = datasets.drawn(grain.MapDataset.source(lines), 0)
    batches = datasets.Steps(stream, len(lines), plan.run, setup.processor, 1, workers=0)
    with jax.set_mesh(setup.mesh):
        step = functools.partial(make_eval_step(plan), *setups.load_params_of(setup, sys.stderr.isatty()))
        sums = summed(batches, step, setup.mesh)
    return sums["cross_entropy"] / sums["weight"], round(sums["weight"])


def worse(before: dict[str, float], after: dict[str, float], most: Sequence[float]) -> list[str]:
    """What got worse by more than `most` (of nats, ended, wer), a phrase each. What is no number is worse."""
    told = []
    for (name, old), by in zip(before.items(), most, strict=False):
        new, slack = after[name], by * old if name == "nats" else by
        loss = old - new if name == "ended" else new - old
        if not loss <= slack + 1e-9:
            told.append(f"{name} went from {old:.4f} to {new:.4f}")
    return told


def table(told: dict[str, Any]) -> str:
    """The summary for people."""
    rows = [f"{'':8} {'before':>9} {'after':>9}"]
    rows += [f"{name:8} {value:9.4f} {told['after'][name]:9.4f}" for name, value in told["before"].items()]
    rows.append(f"{told['conversations']} conversations, {told['codes']} codes and ends, {len(told['broken'])} broken, "
                f"{told['seconds']:.1f} s")
    return "\n".join([*rows, *(f"broken, {where}: {sentence}" for where, sentence in told["broken"].items())])


if __name__ == "__main__":
    _cli.run(main)
