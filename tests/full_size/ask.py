"""Asks a checkpoint about a picture and a sound, in a process whose peak of memory is its own.

    python -m tests.full_size.ask DIRECTORY DTYPE
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

import omni_jax
from omni_jax.inference.replies import Options

PICTURE = Path(omni_jax.__file__).parent / "assets" / "samples" / "picture.jpg"
CELLS, SECONDS, TOKENS = 64, 2, 4
LIMIT = 18_000_000_000  # bytes: beyond, this process fails, and not another one of the machine's


def conversation() -> list[dict]:
    """A picture of at most 64 cells of 28 x 28 pixels, two seconds of a rising tone, and a question."""
    time_axis = np.arange(SECONDS * 16000) / 16000
    tone = (0.3 * np.sin(2 * np.pi * (200 + 300 * time_axis) * time_axis)).astype(np.float32)
    return [{"role": "user", "content": [
        {"type": "image", "image": str(PICTURE), "max_pixels": CELLS * 28 * 28}, {"type": "audio", "audio": tone},
        {"type": "text", "text": "What is seen, and what is heard?"}]}]


def main(directory: str, dtype: str) -> dict:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    started = time.perf_counter()
    omni = omni_jax.load(directory, mesh="", dtype=dtype, speech=False)
    loaded = time.perf_counter() - started
    prompt = omni.prompt(conversation())
    (cold, _), (warm, logits) = _reply(omni), _reply(omni)
    return {"dtype": dtype, "load_seconds": loaded, "prompt_tokens": len(prompt.token_ids),
            "media": {info.kind: info.tokens for info in prompt.media}, "cold_first_token_seconds":
            cold.timings["first_token"], "first_token_seconds": warm.timings["first_token"], "seconds_per_token":
            (warm.timings["total"] - warm.timings["first_token"]) / (TOKENS - 1), "token_ids": warm.token_ids,
            "same_again": cold.token_ids == warm.token_ids, "finite": bool(np.isfinite(logits).all()),
            "peak_bytes": _peak()}


def _reply(omni: omni_jax.Omni) -> tuple[omni_jax.Reply, np.ndarray]:
    """The greedy reply, and the logits that its last token was drawn from."""
    started = time.perf_counter()
    request = omni.request(Options(temperature=0, max_new_tokens=TOKENS), np.zeros(1, np.uint32))
    session = omni.begin([omni.prompt(conversation())], request, started)
    return omni.finish(session, request, started)[0], np.asarray(session.state.logits)


def _peak() -> int:
    """The most memory that this process has held, mapped pages of files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
