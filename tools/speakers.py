"""The voices of a checkpoint: lists them, copies, adds those of another file, removes, writes them out.

They lie beside the weights, as spk_dict.pt (Hugging Face) or speakers.safetensors (a converted checkpoint).

Example:
  python -m tools.speakers Qwen2.5-Omni-7B                                  # list
  python -m tools.speakers qwen-7b --add Qwen2.5-Omni-7B/spk_dict.pt        # a checkpoint that lost its voices
  python -m tools.speakers qwen-7b --add others.safetensors --only Ada      # one of them
  python -m tools.speakers qwen-7b --copy Chelsie Chelsie-2 --remove Ethan
  python -m tools.speakers qwen-7b --write spk_dict.pt                      # or a .safetensors
"""

from pathlib import Path
from typing import Any

from omni_jax import OmniError
from omni_jax.weights import find_speakers, is_store, read_speakers, write_speakers
from omni_jax.weights.files import whole_file
from omni_jax.weights.speakers import Speaker
from tools._cli import parser, run


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = _parser().parse_args(argv)
    directory = arguments.checkpoint
    if not directory.is_dir():
        raise OmniError(f"{directory}: is not a directory; give the directory of a checkpoint")
    if arguments.only and not arguments.add:
        raise OmniError("--only chooses among the voices of --add: give both")
    before = find_speakers(directory)
    speakers = _changed(before, arguments)
    if speakers != before:
        replace_speakers(directory, speakers)
    if arguments.write:
        _write_new(arguments.write, speakers)
    return {"directory": str(directory), "speakers": [_described(name, voice) for name, voice in speakers.items()]}


def beside_weights(directory: Path) -> Path:
    """The file that holds a checkpoint's voices, or would."""
    found = [path for name in ("speakers.safetensors", "spk_dict.pt") if (path := directory / name).is_file()]
    return found[0] if found else directory / ("speakers.safetensors" if is_store(directory) else "spk_dict.pt")


def replace_speakers(directory: Path, speakers: dict[str, Speaker]) -> None:
    """Writes a checkpoint's voices anew, whole or not at all."""
    with whole_file(beside_weights(directory)) as partial:
        write_speakers(partial, speakers)


def _changed(before: dict[str, Speaker], arguments: Any) -> dict[str, Speaker]:
    """The voices after copying, adding and removing, in this order. Raises OmniError."""
    speakers = dict(before)
    for source, name in arguments.copy or ():
        speakers[new_name(name, speakers)] = speakers[_known(source, speakers)]
    for path in arguments.add or ():
        others = read_speakers(path)
        for name in arguments.only or others:
            speakers[new_name(name, speakers)] = others[_known(name, others)]
    for name in arguments.remove or ():
        del speakers[_known(name, speakers)]
    return speakers


def _known(name: str, speakers: dict[str, Speaker]) -> str:
    if name not in speakers:
        raise OmniError(f"speaker {name!r} is unknown; there is {', '.join(speakers) or 'none'}")
    return name


def new_name(name: str, speakers: dict[str, Speaker]) -> str:
    if not name.strip():
        raise OmniError("a speaker's name is empty; give one")
    if name in speakers:
        raise OmniError(f"speaker {name!r} is there already; remove it first, or choose another name")
    return name


def _write_new(path: Path, speakers: dict[str, Speaker]) -> None:
    if path.suffix not in (".pt", ".safetensors"):
        raise OmniError(f"--write {path}: must end with .pt or .safetensors")
    if path.exists() or not path.absolute().parent.is_dir():
        raise OmniError(f"--write {path}: exists already, or its directory does not; give another name")
    with whole_file(path) as partial:
        write_speakers(partial, speakers)


def _described(name: str, voice: Speaker) -> str:
    return f"{name} (first token {voice.bos_token}, {voice.ref_mel.shape[1] / 100:.1f} s of reference)"


def _parser():
    made = parser(__doc__)
    made.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a directory of either kind")
    made.add_argument("--copy", nargs=2, action="append", metavar=("NAME", "NEW"), help="one by another name")
    made.add_argument("--add", type=Path, action="append", metavar="FILE", help="a spk_dict.pt or .safetensors to add")
    made.add_argument("--only", action="append", metavar="NAME", help="of the voices of --add; repeatable")
    made.add_argument("--remove", action="append", metavar="NAME")
    made.add_argument("--write", type=Path, metavar="FILE", help="write all voices to a .pt or .safetensors")
    return made


if __name__ == "__main__":
    run(main)
