"""Writes what a training run has learnt as a Hugging Face directory, which omni_jax and transformers load.

Everything else is as it was in the checkpoint that the run started from, bit for bit: networks that did not learn,
the voices, tokenizer, chat template and generation config. Adapters (LoRA) are added to their weights. Weights are in
the types of that checkpoint. OUT is written whole or not at all.

Example:
  python -m tools.export out/tuning tuned-7b              # the last checkpoint
  python -m tools.export out/tuning tuned-7b --step 400
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError
from omni_jax.training.checkpoints import read_trained
from omni_jax.training.config import TrainConfig
from omni_jax.training.networks import apart, codec_config
from omni_jax.training.tuned import tuned
from omni_jax.weights import beside, find_speakers, match, ordered_tensors, read_tensors, save_huggingface
from omni_jax.weights.export import MAX_SHARD_SIZE
from omni_jax.weights.foreign import find_foreign, replaced
from tools._cli import parser, run, size

VOICES = "spk_dict.pt"


def main(argv: list[str] | None = None) -> dict:
    arguments = _parser().parse_args(argv)
    out, started = arguments.out, time.perf_counter()
    trained, step, learnt = read_trained(arguments.workdir, arguments.step)
    source = Path(trained.model)
    if not source.is_dir():
        raise OmniError(f"{source}: is not a directory, and {arguments.workdir}/config.json names it as the checkpoint "
                        "that the run started from; put it back")
    config, speakers = OmniConfig.load(source), find_speakers(source)
    matched = match(read_tensors(source, config), config, source)
    foreign = find_foreign(config, trained.parts, matched)
    own, added = apart(learnt)
    tensors = list(ordered_tensors(tuned(replaced(matched, foreign), own, trained.lora)))
    as_it_is = (source / VOICES).is_file()

    def write_companions(partial: Path) -> None:
        if as_it_is:
            shutil.copyfile(source / VOICES, partial / VOICES)
        _write_beside(source, partial, added, config, trained)

    save_huggingface(out, config, tensors, None if as_it_is else speakers, companions=source,
                     write_companions=write_companions, max_shard_size=arguments.max_shard_size, progress=True)
    return {"directory": str(out), "step": step, "started_from": str(source), "learnt": len(learnt),
            "beside": [name for name in beside.NETWORKS if beside.exists(out, name)], "tensors": len(tensors),
            "bytes": sum(tensor.nbytes for tensor in tensors), "speakers": list(speakers),
            "notes": [*foreign.notes, *_notes(out, learnt, speakers)],
            "seconds": round(time.perf_counter() - started, 2)}


def _write_beside(source: Path, out: Path, added: dict[str, np.ndarray], config: OmniConfig,
                  trained: TrainConfig) -> None:
    """The networks that lie beside a checkpoint: as they were, or as the run has left them. What only judges stays
    behind."""
    for path in beside.files(source):
        shutil.copyfile(path, out / path.name)
    learns = any(path.startswith(f"{beside.CODEC}/") for path in added)
    beside.save(out, added, codec_config(config, trained) if learns else None)


def _notes(out: Path, learnt: Mapping[str, Any], speakers: Mapping[str, Any]) -> list[str]:
    """What its user had better know."""
    if not speakers or not any(path.startswith(f"{beside.SPEAKER}/") for path in learnt):
        return []
    return [f"the speaker encoder has learnt, and the voices {', '.join(speakers)} are as they were: make them anew "
            f"(tools.speakers {out} --remove NAME, then tools.make_speaker {out} FILE NAME)"]


def _parser():
    made = parser(__doc__)
    made.add_argument("workdir", type=Path, metavar="WORKDIR", help="the directory of a training run")
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--step", type=int, help="of the checkpoint to export (default: the last)")
    made.add_argument("--max-shard-size", type=size, default=MAX_SHARD_SIZE,
                      help="of the weight files, e.g. 500MB (default 2GB)")
    return made


if __name__ == "__main__":
    run(main)
