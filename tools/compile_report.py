"""Compiles the model for chips that are not here and reports memory, work and the time it implies.

For every target and phase: does it compile and fit, bytes per device, FLOPs, bytes moved, collectives, kernels, and
the time by the chip's published peaks. Time is the larger of FLOPs and bytes at peak, plus the collectives, plus the
start of each kernel and collective (tools/_chips.py has the numbers), nothing overlapped. Token2Wav's products, float32
at Precision.HIGHEST, have a peak of their own; a loop that ends by what it computes counts one turn. "x need": bytes
moved over the bytes of the weights and the cache that the phase must read. "attention": its kernel, where one is used
at all.

Example:
  python -m tools.compile_report configs/qwen2.5-omni-7b.json --target v5e:2x4 --mesh fsdp=2,model=4 --phase decode-32k

    target  mesh       phase fits weights cache  temp total of GB  TFLOP     GB x need  coll     MB kernels      ms ...
   v5e:2x4   2x4  decode-32k  yes    2.24  0.47  0.00  2.71 17.18  0.005   2.24   1.00   173    1.4     855    3.52 ...

  python -m tools.compile_report configs/qwen2.5-omni-7b.json --target h100 v6e:2x4 --first-audio 1000

A row is followed by remarks: a cache that is copied, a call that compiles anew because its result comes back in another
sharding, what a call does around its loop, and with --top N the costliest kernels and collectives. --first-audio N adds
up, instead, what a prompt of N tokens goes through before its first sound: kernels in a loop pay their start in every
turn, a program its launch from the host once. The compilers are not in requirements.txt: see requirements-compile.txt.

Training steps (--phase train-8k train-32k train-lora train-talker train-dit) have a table of their own: "rows" are a
device's; "grads", in float32, are among the temporaries; "optim": Adam's moments and, of the DiT, averages; "model":
the TFLOP that a step must compute, 6 N a token (4 N where N is frozen, 2 N of the Thinker that a Talker listens to),
and attention; "MFU": those over what the chip could compute in the step's time, in %.

  python -m tools.compile_report configs/qwen2.5-omni-7b.json --target v5p:2x2x2 --phase train-8k --remat dots
"""

import argparse
import functools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.data.buckets import PREFILL_CHUNK
from omni_jax.errors import OmniError
from tools import _chips, _first_audio, _hlo, _phases, _speech_phases, _training
from tools._cli import parser, run

PHASES = _phases.PHASES | _speech_phases.PHASES
COLUMNS = (("target", "10s"), ("mesh", "5s"), ("phase", "12s"), ("fits", "4s"), ("weights", "7s"), ("cache", "5s"),
           ("temp", "5s"), ("total", "5s"), ("of GB", "5s"), ("TFLOP", "6s"), ("GB", "6s"), ("x need", "6s"),
           ("coll", "5s"), ("MB", "6s"), ("kernels", "7s"), ("ms", "7s"), ("work", "7s"), ("links", "6s"),
           ("starts", "6s"), ("attention", "9s"))

ATTENTION = {"flash": "tpu_custom_call", "cuDNN": "__cudnn$fmha"}  # the mark of each fused kernel in a module's text


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    arguments = _parser().parse_args(argv)
    config = OmniConfig.load(arguments.config)
    asked = _chosen(arguments, config)
    phases, training = ([name for name in asked if (name in _training.PHASES) == wanted] for wanted in (False, True))
    _chips.prepare()
    rows, sums = [], []
    if not arguments.json:
        print("bytes per device in GB; ms = work (FLOPs or bytes, the larger) + links (collectives) + starts")
        for columns in [COLUMNS] * bool(phases) + [_training.COLUMNS] * bool(training):
            print(" ".join(f"{name:>{width}}" for name, width in columns))

    def add(target, phase, row_of, *inputs):
        _progress(f"{target} {phase}")
        rows.append(row_of(*inputs, target, phase))
        if not arguments.json:
            _show(rows[-1])

    reported = functools.partial(report, chunk=arguments.chunk, batch=arguments.batch, top=arguments.top)
    trained = functools.partial(train_report, batch=arguments.batch, remat=arguments.remat, top=arguments.top)
    for target in arguments.target:
        for model in _models(config, target, arguments.mesh) if phases or arguments.first_audio else ():
            for phase in phases:
                add(target, phase, reported, model)
            if arguments.first_audio:
                sums.append(first_audio(model, target, arguments.first_audio, arguments.json, arguments.top))
        for mesh in _meshes(target, arguments.mesh) or [sharding.training_mesh(_chips.devices(target))]:
            for phase in training:
                add(target, phase, trained, config, mesh)
    _progress("")
    found = {"config": str(arguments.config), "rows": rows, "first_audio": sums}
    return found if arguments.json else None


def _chosen(arguments: Any, config: OmniConfig) -> list[str]:
    """The phases asked for. Raises OmniError."""
    speaks = config.talker_config is not None and config.token2wav_config is not None
    asked = arguments.phase or []
    of_speech = {*_speech_phases.PHASES, *_training.SPOKEN}
    spoken = ["--first-audio"] if arguments.first_audio else [name for name in asked if name in of_speech]
    if spoken and not speaks:
        raise OmniError(f"{arguments.config}: has no Talker and Token2Wav; leave out {spoken[0]}")
    if asked or arguments.first_audio:
        return asked
    return list(PHASES if speaks else _phases.PHASES)


def _meshes(target: str, meshes: list[str] | None) -> list[Mesh]:
    return [sharding.make_mesh(mesh, _chips.devices(target)) for mesh in meshes or []]


def _models(config: OmniConfig, target: str, meshes: list[str] | None) -> list[_phases.Model]:
    kv_heads = config.thinker_config.text_config.num_key_value_heads
    laid = _meshes(target, meshes) or [sharding.default_mesh(kv_heads, _chips.devices(target))]
    return [_phases.Model.build(config, mesh) for mesh in laid]


def first_audio(model: _phases.Model, target: str, tokens: int, quiet: bool = True, top: int = 0) -> dict[str, Any]:
    """The time from a prompt of so many tokens to the first sound, part by part."""
    found = {"target": target, "mesh": _mesh(model), "tokens": tokens, "lines": []}
    for part in _first_audio.parts(model, tokens):
        _progress(f"{target} {part.what}")
        row = measured(model, target, part.what, part.build, top) if part.build else {}
        if row and not row["compiles"]:
            return found | {"error": f"{part.what}: {row['error']}"}
        found["lines"].append(_first_audio.line(part, row) | {"remarks": _remarks(row) if row else []})
    found["total"] = sum(each["total"] for each in found["lines"])
    _progress("")
    if not quiet:
        shape = "x".join(map(str, found["mesh"].values())) or "1"
        print(f"\n{target} ({shape}): first audio of a prompt of {tokens:,} tokens, in ms", flush=True)
        print("\n".join(_first_audio.table(found["lines"])), flush=True)
        for each in found["lines"]:
            print("".join(f"    {each['what']}: {remark.strip()}\n" for remark in each["remarks"]), end="", flush=True)
    return found


def report(model: _phases.Model, target: str, phase: str, chunk: int = PREFILL_CHUNK, batch: int = 1,
           top: int = 0) -> dict[str, Any]:
    """One row: a phase compiled for a target's devices. `top`: so many of the costliest kernels are named."""
    module = _speech_phases if phase in _speech_phases.PHASES else _phases
    return measured(model, target, phase, lambda: module.step(model, phase, chunk, batch), top)


def train_report(config: OmniConfig, mesh: Mesh, target: str, phase: str, batch: int = 1, remat: str = "full",
                 top: int = 0) -> dict[str, Any]:
    """One row: a training step, with so many rows a device."""
    model, step = _training.train_step(config, mesh, phase, batch, remat)
    row = measured(model, target, phase, lambda: step, top)
    found = _training.facts(step, row, mesh.size, _chips.chip(target).flops) if row["compiles"] else step.facts
    return row | found


def measured(model: _phases.Model, target: str, phase: str, build: Callable[[], _phases.Step],
             top: int = 0) -> dict[str, Any]:
    """The row of a step."""
    row = {"target": target, "mesh": _mesh(model), "phase": phase}
    started = time.perf_counter()
    with jax.set_mesh(model.mesh):
        try:
            step = build()
            compiled, options = compile_step(step)
        except jax.errors.JaxRuntimeError as error:
            return row | {"compiles": False, "fits": False, "error": _reason(error)}
    row |= {"compiles": True, "options": options, "compile_seconds": round(time.perf_counter() - started, 1)}
    row |= _memory(model, step, compiled, _chips.chip(target))
    text = compiled.as_text()
    row |= _work(step, _hlo.account(text, step.branches, step.turns), _chips.chip(target), row, top)
    row["attention"] = next((name for name, mark in ATTENTION.items() if mark in text), "XLA")
    return row | {"per_prompt": step.per_prompt, "turns": sum(step.turns) or 1, "unstable": unstable(step, compiled)}


def compile_step(step: _phases.Step) -> tuple[Any, dict[str, Any]]:
    """The compiled step and the compiler's options. Without a GPU to try kernels on, XLA may take a tiling of its own
    product kernels (Triton) that it then cannot compile: such a step gets cuBLAS's."""
    lowered = step.function.lower(*step.args)
    try:
        return lowered.compile(), {}
    except jax.errors.JaxRuntimeError as error:
        if "tile sizes" not in str(error):
            raise
    options = {"xla_gpu_enable_triton_gemm": False}
    return lowered.compile(compiler_options=options), options


def _mesh(model: _phases.Model) -> dict[str, int]:
    return {name: size for name, size in model.mesh.shape.items() if size > 1}


def unstable(step: _phases.Step, compiled: Any) -> list[str]:
    """Results that come out in another sharding than they went in: the next call would be another program."""
    before = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(step.args):
        before.setdefault(_name(path), leaf)
    changed = []
    for path, where in jax.tree_util.tree_leaves_with_path(compiled.output_shardings):
        leaf = before.get(_name(path))
        if _name(path) and leaf is not None and not where.is_equivalent_to(leaf.sharding, len(leaf.shape)):
            changed.append(_name(path)[0].name)
    return list(dict.fromkeys(changed))


def _name(path: tuple) -> tuple:
    """The last named field on a path (keys, values, tokens, …) and what follows it."""
    return next((path[i:] for i in reversed(range(len(path))) if hasattr(path[i], "name")), ())


def _memory(model: _phases.Model, step: _phases.Step, compiled: Any, chip: _chips.Chip) -> dict[str, Any]:
    """Bytes per device. Weights are all that a loaded model keeps there, the other phases' too."""
    stats = compiled.memory_analysis()
    weights, cache = _phases.local_bytes(model.params), _phases.local_bytes(step.cache)
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    total = weights + cache + stats.temp_size_in_bytes + results
    return {"weights": weights, "cache": cache, "temporaries": stats.temp_size_in_bytes, "results": results,
            "memory": total, "chip_memory": chip.memory, "fits": total <= chip.memory,
            "cache_in_place": not cache or stats.alias_size_in_bytes >= cache}


def _work(step: _phases.Step, cost: _hlo.Cost, chip: _chips.Chip, row: dict, top: int) -> dict[str, Any]:
    once = _phases.local_bytes(step.weights) + row["cache"]
    needed = step.passes * once
    arithmetic = (cost.flops - cost.exact) / chip.flops + cost.exact / chip.exact_flops
    seconds = {"flops": arithmetic, "bytes": cost.bytes / chip.memory_bandwidth,
               "links": cost.wire / chip.link_bandwidth,
               "starts": cost.kernels * chip.kernel_seconds + cost.collectives * chip.collective_seconds}
    seconds["total"] = max(seconds["flops"], seconds["bytes"]) + seconds["links"] + seconds["starts"]
    # Of one turn: without what a call does once, before and after its loop.
    per_step, step_need = (cost.loop.bytes, once) if cost.loop else (cost.bytes, needed)
    return {"flops": cost.flops, "exact_flops": cost.exact, "bytes": cost.bytes, "needed_bytes": needed,
            "ratio": cost.bytes / max(needed, 1), "step_bytes": per_step, "step_ratio": per_step / max(step_need, 1),
            "collectives": cost.collectives, "collective_bytes": cost.wire, "kernels": cost.kernels, "seconds": seconds,
            "heaviest": [{"bytes": moved, "flops": flops, "what": what} for moved, flops, what in cost.heaviest[:top]],
            "collective_kinds": dict(sorted(cost.by_collective.items(), key=lambda kv: -kv[1])[:top])}


def _show(row: dict[str, Any]) -> None:
    mesh, fits = "x".join(str(n) for n in row["mesh"].values()) or "1", "yes" if row["fits"] else "NO"
    columns, first = COLUMNS, [row["target"], mesh, row["phase"], fits]
    if row["phase"] in _training.PHASES:
        columns, first[3:3] = _training.COLUMNS, [row["remat"], str(row["rows"])]
        first += _training.cells(row) if row["compiles"] else []
    elif row["compiles"]:
        seconds = row["seconds"]
        gigabytes = [f"{row[k] / 1e9:.2f}" for k in ("weights", "cache", "temporaries", "memory", "chip_memory")]
        first += [*gigabytes, f"{row['flops'] / 1e12:.3f}", f"{row['bytes'] / 1e9:.2f}", f"{row['ratio']:.2f}",
                  f"{row['collectives']:.0f}", f"{row['collective_bytes'] / 1e6:.1f}", f"{row['kernels']:.0f}"]
        first += [f"{1e3 * n:.2f}" for n in (seconds["total"], max(seconds["flops"], seconds["bytes"]),
                                            seconds["links"], seconds["starts"])]
        first += [row["attention"]]
    print(" ".join(f"{text:>{width}}" for text, (_, width) in zip(first, columns, strict=False)), flush=True)
    for line in _remarks(row):
        print(f"    {line}", flush=True)


def _remarks(row: dict[str, Any]) -> list[str]:
    if not row["compiles"]:
        return [row["error"]]
    remarks = []
    if not row["cache_in_place"]:
        remarks.append("the cache is copied: not updated in place")
    if row["unstable"]:
        remarks.append(f"comes back in another sharding (the next call compiles anew): {', '.join(row['unstable'])}")
    if row["step_bytes"] < 0.98 * row["bytes"] and row["turns"] == 1:
        remarks.append(f"a step inside the loop moves {row['step_bytes'] / 1e9:.2f} GB ({row['step_ratio']:.2f} x "
                       f"need), the call around it {(row['bytes'] - row['step_bytes']) / 1e9:.2f}")
    remarks += [f"{each['bytes'] / 1e6:10.1f} MB {each['flops'] / 1e9:10.1f} GFLOP  {each['what'][:140]}"
                for each in row["heaviest"]]
    return remarks + [f"{wire / 1e6:10.3f} MB sent: {kind}" for kind, wire in row["collective_kinds"].items()]


def _reason(error: Exception) -> str:
    """What the compiler said, in one line."""
    text = str(error)
    used = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", text)
    return f"needs {used.group(1)}B of {used.group(2)}B" if used else text.strip().splitlines()[0][:200]


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end=" … " if what else "", file=sys.stderr, flush=True)


def _tokens(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, 1 or more")
    return int(text)


def _parser():
    made, trained = parser(__doc__), {name: phase.what for name, phase in _training.PHASES.items()}
    made.add_argument("config", type=Path, metavar="CONFIG", help="a config.json, or a directory that holds one")
    made.add_argument("--target", nargs="+", default=_chips.TARGETS, metavar="TARGET",
                      help=f"of {', '.join(_chips.TARGETS)} (default all) or other sizes of these")
    made.add_argument("--phase", nargs="+", choices=PHASES | _training.PHASES, metavar="PHASE",
                      help="; ".join(f"{name}: {what}" for name, what in (PHASES | trained).items())
                      + " (default all of a reply that the model has, or with --first-audio none)")
    made.add_argument("--first-audio", type=_tokens, metavar="TOKENS",
                      help="add up the time from a prompt of so many tokens to the first sound")
    made.add_argument("--mesh", action="append", help='as in "fsdp=2,model=4" (repeatable; left out: the default)')
    made.add_argument("--chunk", type=int, default=PREFILL_CHUNK, help="tokens of a prefill step (default %(default)s)")
    made.add_argument("--batch", type=int, default=1,
                      help="rows of prefill and decode, or of a training step on each device (default 1)")
    made.add_argument("--remat", choices=("none", "dots", "full"), default="full",
                      help="what a training step computes again in its backward pass (default %(default)s)")
    made.add_argument("--top", type=int, default=0, help="name so many of the costliest kernels and collectives")
    return made


if __name__ == "__main__":
    run(main)
