"""Compiles the model for chips that are not here and reports memory, work and the time it implies.

For every target and phase: does it compile and fit, bytes per device, FLOPs, bytes moved, collectives, kernels, and
the time by the chip's published peaks. Time is the larger of FLOPs and bytes at peak, plus the collectives, plus the
start of each kernel and collective (tools/_chips.py has the numbers), nothing overlapped. "x need": bytes moved over
the bytes of the weights and the cache that the phase must read. "attention": its kernel, where one is used at all.

Example:
  python -m tools.compile_report configs/qwen2.5-omni-7b.json --target v5e:2x4 --mesh fsdp=2,model=4 --phase decode-32k

    target  mesh       phase fits weights cache  temp total of GB  TFLOP     GB x need  coll     MB kernels      ms ...
   v5e:2x4   2x4  decode-32k  yes    2.24  0.47  0.00  2.71 17.18  0.005   2.24   1.00   173    1.4     855    3.52 ...

A row is followed by remarks: a cache that is copied, a call that compiles anew because its result comes back in another
sharding, what a call does around its loop, and with --top N the costliest kernels and collectives. The compilers are
not in requirements.txt: see requirements-compile.txt.
"""

import re
import sys
import time
from pathlib import Path
from typing import Any

import jax

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.data.buckets import PREFILL_CHUNK
from tools import _chips, _hlo, _phases
from tools._cli import parser, run

COLUMNS = (("target", "10s"), ("mesh", "5s"), ("phase", "11s"), ("fits", "4s"), ("weights", "7s"), ("cache", "5s"),
           ("temp", "5s"), ("total", "5s"), ("of GB", "5s"), ("TFLOP", "6s"), ("GB", "6s"), ("x need", "6s"),
           ("coll", "5s"), ("MB", "6s"), ("kernels", "7s"), ("ms", "7s"), ("work", "7s"), ("links", "6s"),
           ("starts", "6s"), ("attention", "9s"))

ATTENTION = {"flash": "tpu_custom_call", "cuDNN": "__cudnn$fmha"}  # the mark of each fused kernel in a module's text


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    arguments = _parser().parse_args(argv)
    config = OmniConfig.load(arguments.config).thinker_config
    _chips.prepare()
    rows = []
    if not arguments.json:
        print("bytes per device in GB; ms = work (FLOPs or bytes, the larger) + links (collectives) + starts")
        print(" ".join(f"{name:>{width}}" for name, width in COLUMNS))
    for target in arguments.target:
        devices = _chips.devices(target)
        for mesh in arguments.mesh or [None]:
            kv_heads = config.text_config.num_key_value_heads
            laid = sharding.make_mesh(mesh, devices) if mesh else sharding.default_mesh(kv_heads, devices)
            model = _phases.Model.build(config, laid)
            for phase in arguments.phase:
                _progress(f"{target} {phase}")
                rows.append(report(model, target, phase, arguments.chunk, arguments.batch, arguments.top))
                if not arguments.json:
                    _show(rows[-1])
    _progress("")
    return {"config": str(arguments.config), "rows": rows} if arguments.json else None


def report(model: _phases.Model, target: str, phase: str, chunk: int = PREFILL_CHUNK, batch: int = 1,
           top: int = 0) -> dict[str, Any]:
    """One row: a phase compiled for a target's devices. `top`: so many of the costliest kernels are named."""
    row = {"target": target, "mesh": {k: v for k, v in model.mesh.shape.items() if v > 1}, "phase": phase}
    started = time.perf_counter()
    with jax.set_mesh(model.mesh):
        try:
            step = _phases.step(model, phase, chunk, batch)
            compiled, options = compile_step(step)
        except jax.errors.JaxRuntimeError as error:
            return row | {"compiles": False, "fits": False, "error": _reason(error)}
    row |= {"compiles": True, "options": options, "compile_seconds": round(time.perf_counter() - started, 1)}
    row |= _memory(model, step, compiled, _chips.chip(target))
    text = compiled.as_text()
    row |= _work(step, _hlo.account(text, step.branches), _chips.chip(target), row, top)
    row["attention"] = next((name for name, mark in ATTENTION.items() if mark in text), "XLA")
    return row | {"per_prompt": step.per_prompt, "unstable": unstable(step, compiled)}


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


def unstable(step: _phases.Step, compiled: Any) -> list[str]:
    """Results that come out in another sharding than they went in: the next call would be another program."""
    before = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(step.args):
        before.setdefault(_name(path), leaf)
    changed = []
    for path, where in jax.tree_util.tree_leaves_with_path(compiled.output_shardings):
        leaf = before.get(_name(path))
        if _name(path) and leaf is not None and not where.is_equivalent_to(leaf.sharding, len(leaf.shape)):
            changed.append(_name(path))
    return list(dict.fromkeys(changed))


def _name(path: tuple) -> str:
    """The last named field on a path: keys, values, tokens, …"""
    return next((key.name for key in reversed(path) if hasattr(key, "name")), "")


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
    needed = _phases.local_bytes(step.weights) + row["cache"]
    seconds = {"flops": cost.flops / chip.flops, "bytes": cost.bytes / chip.memory_bandwidth,
               "links": cost.wire / chip.link_bandwidth,
               "starts": cost.kernels * chip.kernel_seconds + cost.collectives * chip.collective_seconds}
    seconds["total"] = max(seconds["flops"], seconds["bytes"]) + seconds["links"] + seconds["starts"]
    per_step = cost.loop.bytes if cost.loop else cost.bytes  # without what a call does once, before and after its loop
    return {"flops": cost.flops, "bytes": cost.bytes, "needed_bytes": needed, "ratio": cost.bytes / max(needed, 1),
            "step_bytes": per_step, "step_ratio": per_step / max(needed, 1), "collectives": cost.collectives,
            "collective_bytes": cost.wire, "kernels": cost.kernels, "seconds": seconds,
            "heaviest": [{"bytes": moved, "flops": flops, "what": what} for moved, flops, what in cost.heaviest[:top]],
            "collective_kinds": dict(sorted(cost.by_collective.items(), key=lambda kv: -kv[1])[:top])}


def _show(row: dict[str, Any]) -> None:
    mesh = "x".join(str(n) for n in row["mesh"].values()) or "1"
    first = [row["target"], mesh, row["phase"], "yes" if row["fits"] else "NO"]
    if row["compiles"]:
        seconds = row["seconds"]
        gigabytes = [f"{row[k] / 1e9:.2f}" for k in ("weights", "cache", "temporaries", "memory", "chip_memory")]
        first += [*gigabytes, f"{row['flops'] / 1e12:.3f}", f"{row['bytes'] / 1e9:.2f}", f"{row['ratio']:.2f}",
                  f"{row['collectives']:.0f}", f"{row['collective_bytes'] / 1e6:.1f}", f"{row['kernels']:.0f}"]
        first += [f"{1e3 * n:.2f}" for n in (seconds["total"], max(seconds["flops"], seconds["bytes"]),
                                            seconds["links"], seconds["starts"])]
        first += [row["attention"]]
    print(" ".join(f"{text:>{width}}" for text, (_, width) in zip(first, COLUMNS, strict=False)), flush=True)
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
    if row["step_bytes"] < 0.98 * row["bytes"]:
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


def _parser():
    made = parser(__doc__)
    made.add_argument("config", type=Path, metavar="CONFIG", help="a config.json, or a directory that holds one")
    made.add_argument("--target", nargs="+", default=_chips.TARGETS, metavar="TARGET",
                      help=f"of {', '.join(_chips.TARGETS)} (default all) or other sizes of these")
    made.add_argument("--phase", nargs="+", choices=_phases.PHASES, default=list(_phases.PHASES), metavar="PHASE",
                      help="; ".join(f"{name}: {what}" for name, what in _phases.PHASES.items()) + " (default all)")
    made.add_argument("--mesh", action="append", help='as in "fsdp=2,model=4" (repeatable; left out: the default)')
    made.add_argument("--chunk", type=int, default=PREFILL_CHUNK, help="tokens of a prefill step (default %(default)s)")
    made.add_argument("--batch", type=int, default=1, help="rows of prefill and decode (default 1)")
    made.add_argument("--top", type=int, default=0, help="name so many of the costliest kernels and collectives")
    return made


if __name__ == "__main__":
    run(main)
