"""Times this package beside the PyTorch reference: same weights, same threads, float32, in alternation in one run.

    python -m tools.benchmark                              # slices of the 7B's true widths, and configs/tiny.json
    python -m tools.benchmark --config configs/tiny.json --parts decode generate --json
    python -m tools.benchmark CHECKPOINT --parts prefill   # a Hugging Face directory

Parts: decode (one row), prefill, audio and vision (the towers), generate (end to end); train (forward and backward of
the Thinker's language model); talker (one row), dit, bigvgan,
ecapa and token2wav (codes to sound); reply (a spoken one: its first sound and its end) and batch (spoken replies beside
single ones); cold-start (a new process, from its start to its first tokens, with an empty and with a filled compilation
cache). Before anything is timed, both must give the same result (relative 1e-4; the codes of replies equal). Printed
is, for each part, median (min..max) over the rounds: the rates of both, the ratio pair by pair (above 1: ours is
faster), and our share of this machine's peak, which is measured in the same rounds: the better of JAX and torch in
float32 matrix products (prefill, towers, Token2Wav's networks) or in reading memory (decode, talker).

The reference is transformers' model with its default attention (sdpa). Needs the packages of requirements-test.txt.
"""

import contextlib
import dataclasses
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import omni_jax
from omni_jax import Omni, OmniError
from omni_jax.config import OmniConfig
from omni_jax.data.batch import Prompt, collate
from omni_jax.inference import generate as generation
from omni_jax.inference.sampling import Sampling
from tools import _cli, _measure, _speech_benchmark, _training_benchmark
from tools._cold_start import cold_starts
from tools._measure import Job, Side, Spread
from tools._slices import random_model
from tools.parity import reference_inputs, reference_model, relative

CONFIGS = Path(__file__).parent.parent / "configs"
TOLERANCE = 1e-4
DECODE_CONTEXT, DECODE_STEPS = 512, 16
PROMPTS = (512, 2048)
SECONDS_OF_SOUND = 30
PICTURE = (28, 36)  # cells of 28 x 28 pixels: 1,008
VIDEO = (4, 12, 20)  # frame pairs, and cells of each: 960
REPLY = 64
MATRIX, READ = 3072, 1 << 14  # sides of the square matrices that measure the peaks


@dataclasses.dataclass(frozen=True)
class Peak:
    """A measured limit of this machine: `work` (FLOPs or bytes) of one run of `side`."""

    framework: str
    side: Side
    work: float
    rates: dict[str, float]  # of both frameworks, in giga-units per second


# Peaks

def peak(kind: str) -> Peak:
    """The better of both frameworks at `kind`: products of square matrices, or one vector times a large matrix."""
    import torch

    n = MATRIX if kind == "matmul" else READ
    ours, theirs = jnp.ones((n, n)), torch.ones(n, n)
    if kind == "matmul":
        multiply = jax.jit(lambda x: x @ x)
        sides = {"jax": Side(lambda: multiply(ours).block_until_ready()), "torch": Side(lambda: theirs @ theirs)}
    else:
        vector = jnp.ones((1, n))
        read = jax.jit(lambda v, x: jnp.einsum("mk,nk->mn", v, x))
        sides = {"jax": Side(lambda: read(vector, ours).block_until_ready()), "torch": Side(theirs.sum)}
    work = 2 * n**3 if kind == "matmul" else _measure.FLOAT32 * n**2
    _measure.rounds(sides, 1, 0)
    times = _measure.rounds(sides, 5, 10)
    best = {name: work / min(seconds) / 1e9 for name, seconds in times.items()}
    framework = max(best, key=best.get)
    return Peak(framework, sides[framework], work, best)


# Parts

def decode(omni: Omni, reference: Any) -> Iterator[Job]:
    """Greedy steps of one row after a prompt, all in one call of the jitted loop."""
    text = omni.config.thinker_config.text_config
    prompt = text_prompt(DECODE_CONTEXT)
    network, session = begin(omni, prompt, DECODE_STEPS + 1)
    past = reference.model.language_model(input_ids=tensor(prompt), use_cache=True).past_key_values
    first = int(session.state.token[0])

    def ours(cache):
        own = dataclasses.replace(session, cache=cache)
        generation.advance(network, own, DECODE_STEPS + 1)
        return own.state.tokens[:, 1: DECODE_STEPS + 1].block_until_ready(), own.state.logits

    def shorten():
        past.crop(DECODE_CONTEXT - past.get_seq_length())
        return ()

    bytes_read = DECODE_STEPS * _measure.decode_bytes(text, DECODE_CONTEXT + DECODE_STEPS // 2)
    yield Job("decode", f"1 row, {DECODE_STEPS} steps after {DECODE_CONTEXT} tokens",
              Side(ours, lambda: (jax.block_until_ready(jax.tree.map(jnp.copy, session.cache)),)),
              Side(lambda: reference_decode(reference, past, first), shorten),
              lambda a, b: max(relative(a[1], b[1]), float("inf") if a[0].tolist() != b[0] else 0),
              DECODE_STEPS, "tokens/s", bytes_read, "read")


def reference_decode(reference: Any, past: Any, token: int) -> tuple[list[list[int]], Any]:
    """The reference's greedy tokens, one call of its forward for each, and the last logits."""
    import torch

    token, tokens = torch.tensor([[token]]), []
    for _ in range(DECODE_STEPS):
        hidden = reference.model.language_model(input_ids=token, past_key_values=past, use_cache=True)
        logits = reference.lm_head(hidden.last_hidden_state[:, -1])
        token = logits.argmax(-1, keepdim=True)
        tokens.append(int(token))
    return [tokens], logits


def prefill(omni: Omni, reference: Any) -> Iterator[Job]:
    """From a prompt's tokens to the logits after it, with an empty cache that is filled."""

    def theirs(tokens):
        hidden = reference.model.language_model(input_ids=tokens, use_cache=True).last_hidden_state
        return reference.lm_head(hidden[:, -1])

    text = omni.config.thinker_config.text_config
    for T in PROMPTS:
        prompt = text_prompt(T)
        yield Job("prefill", f"{T:,} tokens", Side(lambda prompt=prompt: begin(omni, prompt, 1)[1].state.logits),
                  Side(theirs, lambda prompt=prompt: (tensor(prompt),)), relative,
                  T, "tokens/s", _measure.prefill_flops(text, T), "matmul")


def audio(omni: Omni, reference: Any) -> Iterator[Job]:
    """The audio tower alone, from mel frames to vectors in their places."""
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000 * SECONDS_OF_SOUND).astype(np.float32)
    prompt, inputs = media_prompt(omni, {"type": "audio", "audio": sound})
    features = inputs["input_features"], inputs["feature_attention_mask"]
    thinker = omni.config.thinker_config
    yield Job("audio", f"{SECONDS_OF_SOUND} s of sound", embedding(omni, prompt, thinker.audio_token_index),
              Side(lambda: reference.get_audio_features(*features).last_hidden_state), relative,
              SECONDS_OF_SOUND, "s/s", _measure.audio_flops(thinker.audio_config, len(prompt.clips[0].mel)), "matmul")


def vision(omni: Omni, reference: Any) -> Iterator[Job]:
    """The vision tower alone, from pixels to vectors in their places: a picture, and a video's frame pairs."""
    import torch

    thinker, rng = omni.config.thinker_config, np.random.default_rng(0)
    size = thinker.vision_config.cell_pixels
    frame = lambda rows, cols: rng.integers(0, 256, (size * rows, size * cols, 3), dtype=np.uint8)
    frames = [frame(*VIDEO[1:]) for _ in range(VIDEO[0] * thinker.vision_config.temporal_patch_size)]
    for kind, media, token in (("image", frame(*PICTURE), thinker.image_token_index),
                               ("video", frames, thinker.video_token_index)):
        prompt, inputs = media_prompt(omni, {"type": kind, kind: media})
        values = inputs["pixel_values" + ("_videos" if kind == "video" else "")], inputs[f"{kind}_grid_thw"]
        features = getattr(reference, f"get_{kind}_features")
        F, rows, cols = grid = prompt.pictures[0].grid
        yield Job("vision", f"{kind} of {F} x {rows} x {cols} cells", embedding(omni, prompt, token),
                  Side(lambda features=features, values=values: torch.cat(tuple(features(*values).pooler_output))),
                  relative, F * rows * cols, "cells/s", _measure.vision_flops(thinker.vision_config, grid), "matmul")


def generate(omni: Omni, reference: Any) -> Iterator[Job]:
    """The public `generate`, greedy, from a conversation to text; the reference's from tokens to tokens."""
    endless = Omni(omni.config, dataclasses.replace(omni.network, ends=()), omni.processor, omni.sampling)
    conversation = [{"role": "user", "content": "What is the time in Lima when it is noon in Oslo?"}]
    inputs = reference_inputs(omni.config.thinker_config, [omni.prompt(conversation)], False)

    def theirs():
        tokens = reference.generate(**inputs, max_new_tokens=REPLY, do_sample=False, eos_token_id=None)
        return tokens[0, -REPLY:].tolist()

    yield Job("generate", f"{inputs['input_ids'].shape[1]} tokens in, {REPLY} out",
              Side(lambda: endless.generate(conversation, max_new_tokens=REPLY).token_ids), Side(theirs),
              lambda a, b: 0.0 if a == b else float("inf"), REPLY, "tokens/s")


READING = {"decode": decode, "prefill": prefill, "audio": audio, "vision": vision, "generate": generate}
SPEAKING = _speech_benchmark.PARTS | _speech_benchmark.REPLIES
PARTS = [*READING, "train", *SPEAKING, "cold-start"]


def text_prompt(length: int) -> Prompt:
    return Prompt(np.random.default_rng(0).integers(0, 256, length, dtype=np.int32), (), (), ())


def tensor(prompt: Prompt) -> Any:
    import torch

    return torch.tensor(prompt.token_ids[None]).long()


def begin(omni: Omni, prompt: Prompt, limit: int) -> tuple[generation.Network, generation.Session]:
    """A greedy session of a reply that nothing ends, its prompt read."""
    network = dataclasses.replace(omni.network, ends=())
    batch = collate([prompt], omni.config)
    return network, generation.begin(network, batch, Sampling(), np.array([limit], np.int32),
                                     np.zeros(1, np.uint32))


def media_prompt(omni: Omni, item: dict) -> tuple[Prompt, dict[str, Any]]:
    prompt = omni.prompt([{"role": "user", "content": [item]}])
    return prompt, reference_inputs(omni.config.thinker_config, [prompt], False)


def embedding(omni: Omni, prompt: Prompt, token: int) -> Side:
    """The prompt's embeddings with its media, of which the places of `token` are returned."""
    batch, places = collate([prompt], omni.config), np.flatnonzero(prompt.token_ids == token)
    embed = generation.on_mesh(generation.embed)
    return Side(lambda: np.asarray(embed(omni.network, batch))[0, places])


def measure(job: Job, peaks: dict[str, Peak], repeats: int, budget: float) -> dict[str, Any]:
    """Asserts that both agree, then times them. Raises OmniError if they do not."""
    results = [side.run(*side.prepare()) for side in (job.ours, job.theirs)]
    difference = job.difference(*results)
    if not difference <= TOLERANCE:
        raise OmniError(f"{job.part}, {job.detail}: ours and the reference differ by {difference:.1e} (relative), so "
                        "there is nothing to time; run tools.parity on this checkpoint")
    sides = {"ours": job.ours, "reference": job.theirs}
    if job.kind:
        sides["peak"] = peaks[job.kind].side
    times = _measure.rounds(sides, repeats, budget, job.fewest)
    row = {"part": job.part, "detail": job.detail, "rounds": len(times["ours"]), "difference": difference,
           "unit": job.unit, **{side: _measure.rate(job.units, times[side]) for side in ("ours", "reference")},
           "ratio": _measure.ratio(times["reference"], times["ours"])}
    if job.kind:
        top = [peaks[job.kind].work / seconds for seconds in times["peak"]]
        row |= {"peak_kind": job.kind, "peak": _measure.rate(peaks[job.kind].work / 1e9, times["peak"])}
        for side in ("ours", "reference"):
            share = [job.work / seconds / limit for seconds, limit in zip(times[side], top, strict=True)]
            row |= {f"{side}_giga_per_second": _measure.rate(job.work / 1e9, times[side]),
                    f"{side}_share": Spread.of(share)}
    return row


# Models and the command

def benchmark(name: str, directory: str, parts: list[str], peaks: dict[str, Peak], options: Any) -> Iterator[dict]:
    """The rows of one checkpoint."""
    import torch

    speech = any(part in SPEAKING for part in parts)
    omni = omni_jax.load(directory, mesh="", dtype="float32", speech=speech)
    reference = reference_model(directory)
    with torch.inference_mode():
        for part in parts:
            print(f"{name}: {part} …", file=sys.stderr, flush=True)
            for row in rows_of(part, directory, omni, reference, peaks, options):
                yield {"model": name, **row}


def rows_of(part: str, directory: str, omni: Omni, reference: Any, peaks: dict[str, Peak],
            options: Any) -> Iterator[dict]:
    few = min(3, options.repeats)
    if part == "cold-start":
        yield from cold_starts(directory, omni, options.threads, few)
    elif part in _speech_benchmark.REPLIES:
        yield from _speech_benchmark.REPLIES[part](omni, reference, few)
    elif part == "train":
        job = _training_benchmark.train(directory, omni, getattr(reference, "thinker", reference))
        yield measure(job, peaks, options.repeats, options.seconds)
    else:
        reference = reference if part in SPEAKING else getattr(reference, "thinker", reference)
        for job in {**READING, **_speech_benchmark.PARTS}[part](omni, reference):
            yield measure(job, peaks, options.repeats, options.seconds)


def models(options: Any) -> Iterator[tuple[str, contextlib.AbstractContextManager[str], list[str]]]:
    """(name, directory to enter, parts) of what was asked for."""
    chosen = lambda default: [part for part in options.parts or default if part in default]
    every = lambda path: [part for part in PARTS if part not in SPEAKING or OmniConfig.load(path).talker_config]
    speech = lambda parts: any(part in SPEAKING for part in parts)
    if options.checkpoint:
        yield options.checkpoint, contextlib.nullcontext(options.checkpoint), chosen(every(options.checkpoint))
    elif options.config:
        cut = [f"{options.layers} layers"] * bool(options.layers) + [f"{options.vocabulary} words"] * bool(
            options.vocabulary)
        parts = chosen(every(options.config))
        yield ", ".join([options.config.stem, *cut]), random_model(options.config, options.layers, options.vocabulary,
                                                                   speech(parts)), parts
    else:
        parts = chosen(["decode", "prefill", "audio", "vision", "train", *_speech_benchmark.PARTS])
        yield ("7B widths, 2 layers a network but Token2Wav, vocabulary 4,096",
               random_model(CONFIGS / "qwen2.5-omni-7b.json", 2, 4096, speech(parts)), parts)
        parts = chosen(["decode", "generate", *_speech_benchmark.REPLIES, "cold-start"])
        yield "tiny.json", random_model(CONFIGS / "tiny.json", 0, None, speech(parts)), parts


def use_threads(count: int) -> None:
    """Both frameworks on `count` processors; XLA takes as many threads as it may run on."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(count)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    use_threads(options.threads)
    say = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
    print("peaks …", file=sys.stderr, flush=True)
    peaks = {kind: peak(kind) for kind in ("matmul", "read")}
    say(f"threads: {options.threads}; float32; median (min..max)")
    for kind, unit in (("matmul", "GFLOP/s"), ("read", "GB/s")):
        rates = ", ".join(f"{name} {value:,.1f}" for name, value in peaks[kind].rates.items())
        say(f"peak of {kind}: {rates} {unit}; shares are of {peaks[kind].framework}'s")
    rows = []
    for name, entered, parts in models(options):
        say(f"{name}:") if parts else None
        with entered if parts else contextlib.nullcontext("") as directory:
            for row in benchmark(name, directory, parts, peaks, options) if parts else ():
                rows.append(row)
                say(_measure.line(row))
        gc.collect()
    if options.json:
        limits = {kind: {"used": made.framework, **made.rates} for kind, made in peaks.items()}
        plain = lambda value: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        rows = [{key: plain(value) for key, value in row.items()} for row in rows]
        _cli.show({"threads": options.threads, "dtype": "float32", "peaks": limits, "rows": rows}, as_json=True)


def parse(argv: list[str] | None) -> Any:
    parser = _cli.parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="a Hugging Face directory")
    parser.add_argument("--config", type=Path, help="a config.json, of which a random checkpoint is made")
    parser.add_argument("--layers", type=int, default=0, help="with --config: cut each network to so many layers")
    parser.add_argument("--vocabulary", type=int, help="with --config: cut the vocabulary")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all that apply")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count()), help="of both sides (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each part at most (default 7)")
    parser.add_argument("--seconds", type=float, default=15, help="after which a part makes no more rounds than 3")
    options = parser.parse_args(argv)
    if options.checkpoint and options.config:
        raise OmniError("give a checkpoint or --config, not both")
    if options.repeats < 1 or options.layers < 0:
        raise OmniError("--repeats must be at least 1 and --layers at least 0")
    if not 1 <= options.threads <= os.cpu_count():
        raise OmniError(f"--threads {options.threads}: must be from 1 to {os.cpu_count()}, the processors here")
    for given in filter(None, (options.checkpoint, options.config)):
        OmniConfig.load(given)  # so that a wrong path is told at once
    return options


if __name__ == "__main__":
    _cli.run(main)
