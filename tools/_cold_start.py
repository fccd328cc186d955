"""What a new process takes from its start to its first tokens: ours and the reference, for tools/benchmark.py."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from omni_jax import Omni, OmniError
from tools._measure import Spread

# Each script prints its pieces in seconds.
OURS = """
import json, sys, time; begun = time.perf_counter()
import omni_jax; imported = time.perf_counter()
omni = omni_jax.load(sys.argv[1], mesh="", dtype="float32", speech=False); loaded = time.perf_counter()
reply = omni.generate([{"role": "user", "content": "Hi."}], max_new_tokens=2, temperature=0); end = time.perf_counter()
first = reply.timings["first_token"]
print(json.dumps({"import": imported - begun, "load": loaded - imported, "first token": first,
                  "second token": end - loaded - first}))
"""
THEIRS = """
import json, sys, time; begun = time.perf_counter()
import torch; torch.set_num_threads(int(sys.argv[2]))
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker; imported = time.perf_counter()
model = Thinker.from_pretrained(sys.argv[1], dtype=torch.float32).eval(); loaded = time.perf_counter()
with torch.inference_mode():
    prompt = torch.tensor([json.loads(sys.argv[3])])
    tokens = lambda n: model.generate(prompt, max_new_tokens=n, do_sample=False, eos_token_id=None)
    tokens(1); first = time.perf_counter()
print(json.dumps({"import": imported - begun, "load": loaded - imported, "first token": first - loaded}))
"""


def cold_starts(directory: str, omni: Omni, threads: int, repeats: int) -> list[dict[str, Any]]:
    """New processes in turn: ours with an empty and with a filled compilation cache, and the reference."""
    prompt = omni.prompt([{"role": "user", "content": "Hi."}]).token_ids.tolist()
    runs: dict[str, list[dict[str, float]]] = {"ours, empty cache": [], "ours, warm cache": [], "reference": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            runs["ours, empty cache"].append(new_process(cache, OURS, directory))
            runs["ours, warm cache"].append(new_process(cache, OURS, directory))
        runs["reference"].append(new_process(None, THEIRS, directory, str(threads), json.dumps(prompt)))
    pieces = lambda made: {key: statistics.median(run[key] for run in made) for key in made[0]}
    return [{"part": "cold-start", "detail": name, "rounds": len(made), "pieces": pieces(made),
             "total": Spread.of([sum(run.values()) for run in made])} for name, made in runs.items()]


def new_process(cache: str | None, script: str, *arguments: str) -> dict[str, float]:
    """The pieces that `script` prints, after what the interpreter itself took. Raises OmniError."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    if cache:
        environment |= {"XDG_CACHE_HOME": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    total = time.perf_counter() - begun
    if done.returncode:
        raise OmniError(f"cold-start: the new process failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    pieces = json.loads(done.stdout.splitlines()[-1])
    return {"start and end": total - sum(pieces.values()), **pieces}
