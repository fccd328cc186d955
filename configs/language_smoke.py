"""A language model to start from, as Qwen2.5 is for the released sizes: a small random one learns the texts.

    python -m tools.train configs/language_smoke.py --workdir out/smoke/language

Expect …
"""

from configs.stages import LANGUAGE, SMOKE, smoke
from omni_jax.training.config import MediaBudget, Source

config = smoke("model", train=LANGUAGE, **{
    "data.train": (Source(f"{SMOKE}/data/train_texts.jsonl"),),
    "data.held_out": (Source(f"{SMOKE}/data/held_out_texts.jsonl"),), "data.media": MediaBudget()})
