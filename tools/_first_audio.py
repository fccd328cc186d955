"""What a prompt's time to first audio is made of: the programs that run before the first sound, one after the other."""

import dataclasses
from collections.abc import Callable
from typing import Any

from omni_jax.data.buckets import PREFILL_CHUNK, bucket, token_bucket
from omni_jax.inference.generate import FIRST_CODES, SMALLEST_CACHE
from omni_jax.inference.replies import Options
from omni_jax.inference.sampling import Sampling
from omni_jax.inference.schedule import SCHEDULE
from omni_jax.inference.stream import BLOCK
from tools import _phases, _speech_phases
from tools._phases import Model, Step

CALL_SECONDS = 100e-6  # that launching a program from the host costs, assumed; nothing of it is overlapped
# embeddings, positions (of the prompt, of the voice), seen tokens, marks, two caches, Token2Wav's state, the cut of the
# solved mel; and a launch of the lock-step, whose first block takes two
SMALL_PROGRAMS = 10


@dataclasses.dataclass(frozen=True)
class Part:
    """A program that runs `times` times before the first sound; without `build`, one whose work is next to nothing."""

    what: str
    times: int
    build: Callable[[], Step] | None = None


def parts(model: Model, tokens: int) -> list[Part]:
    """For a written prompt of so many tokens, and a reply spoken with the default options."""
    padded, options = token_bucket(tokens), Options()
    width = min(padded, PREFILL_CHUNK)
    chunks = padded // width
    slots = tuple(bucket(padded + n, SMALLEST_CACHE) for n in (options.max_new_tokens, FIRST_CODES + 1))
    read = (width, width) if chunks == 1 else slots  # see generate.begin
    codes = SCHEDULE.codes_needed(0, model.config.token2wav_config.codes_per_block)
    calls = -(-codes // BLOCK)
    solved, sounded = SCHEDULE.solved(0), SCHEDULE.size(0)
    return [
        Part("small programs and host copies", SMALL_PROGRAMS + chunks),
        Part(f"Thinker, {width} tokens of the prompt", chunks, lambda: _phases.prefill(model, read[0], width, 1)),
        Part(f"Talker, {width} tokens of the prompt", chunks, lambda: _speech_phases.hear(model, read[1], width, 1)),
        Part("first token", 1, lambda: _phases.first_token(model, slots[0], 1, Sampling())),
        Part("Talker, the voice", 1, lambda: _speech_phases.begin(model, slots[1], 1)),
        Part(f"lock-step, {BLOCK} turns, of {codes} codes", calls,
             lambda: _speech_phases.speak(model, slots, 1, (BLOCK, 0))),
        Part(f"DiT, {solved} blocks solved", 1, lambda: _speech_phases.solve(model, 0, 1)),
        Part(f"BigVGAN, {sounded} blocks: {_speech_phases.first_samples(model):,} samples leave", 1,
             lambda: _speech_phases.vocode(model, 0, 1)),
    ]


def line(part: Part, row: dict[str, Any]) -> dict[str, Any]:
    """The part's times in all, in seconds, from the row of one run of it (empty for one without work)."""
    seconds = row.get("seconds", dict.fromkeys(("flops", "bytes", "links", "starts"), 0.0))
    found = {"work": max(seconds["flops"], seconds["bytes"]), "links": seconds["links"], "starts": seconds["starts"],
             "calls": CALL_SECONDS}
    found = {name: part.times * each for name, each in found.items()}
    bound = "flops" if seconds["flops"] > seconds["bytes"] else "bytes"
    return {"what": part.what, "times": part.times, "bound": bound if found["work"] else "", **found,
            "total": sum(found.values()), "kernels": part.times * row.get("kernels", 0),
            "collectives": part.times * row.get("collectives", 0)}


def table(lines: list[dict[str, Any]]) -> list[str]:
    """As text, in milliseconds, with the sum."""
    columns = ("work", "links", "starts", "calls", "total")
    head = f"{'times':>7}  {'':44}{'kernels':>9}{'coll':>7}{'bound':>7}" + "".join(f"{name:>9}" for name in columns)
    names = ("kernels", "collectives", *columns)
    summed = {"what": "in all", "times": "", "bound": ""} | {name: sum(each[name] for each in lines) for name in names}
    return [head] + [f"{each['times']:>7}  {each['what']:44}{each['kernels']:9.0f}{each['collectives']:7.0f}"
                     f"{each['bound']:>7}" + "".join(f"{1e3 * each[name]:9.2f}" for name in columns)
                     for each in (*lines, summed)]
