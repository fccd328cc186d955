"""What all writers and readers of checkpoint directories share: whole-or-nothing writing, companions, progress."""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from omni_jax.errors import OmniError

# Small files that go along with the weights, whichever layout these have.
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "generation_config.json", "chat_template.json", "chat_template.jinja", "LICENSE", "README.md",
    "codec_encoder.json", "codec_encoder.safetensors", "speaker_encoder.safetensors",  # see beside.py
)  # fmt: skip


@contextlib.contextmanager
def whole_directory(out: str | Path, needed: int = 0) -> Iterator[Path]:
    """A new directory beside `out` to write into: renamed to `out` at the end, removed on any failure.

    Args:
      needed: bytes that will be written, compared with the free space before.
    Raises: OmniError if `out` exists, its parent does not, or the disk is too small, full or failing.
    """
    out = Path(out).absolute()
    if out.exists() or out.is_symlink():
        raise OmniError(f"{out}: exists already; give another name or remove it")
    if not out.parent.is_dir():
        raise OmniError(f"{out}: its parent directory does not exist; create it")
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise OmniError(f"{out}: needs {size_text(needed)} and the disk has {size_text(free)} free; make room or "
                        "choose another disk")
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir()
        yield partial
        os.rename(partial, out)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename and not str(error.filename).startswith(str(partial)):
            raise
        raise OmniError(f"{out}: could not be written ({error.strerror or error}); nothing was kept") from None
    finally:
        _remove(partial)


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write: takes its place at the end, and is removed on any failure. Raises OmniError."""
    path = Path(path).absolute()
    partial = path.with_name(f".partial-{os.getpid()}.{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OmniError(f"{path}: could not be written ({error.strerror or error}); nothing was changed") from None
    finally:
        partial.unlink(missing_ok=True)


def require_space(directory: Path, needed: int) -> None:
    """Raises OSError unless the disk has `needed` bytes free. Asked before each large write, so that a disk that others
    fill meanwhile fails between writes and not inside a library's threads."""
    if needed > shutil.disk_usage(directory).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(directory: Path) -> None:
    """Removes a directory into which a failed library's threads may still be writing for a moment."""
    for _ in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def copy_companions(source: str | Path, target: Path) -> list[str]:
    """Copies tokenizer, preprocessor and generation files where present; returns their names."""
    names = [name for name in COMPANIONS if (Path(source) / name).is_file()]
    for name in names:
        shutil.copyfile(Path(source) / name, target / name)
    return names


def progress_bar(total: int | None, what: str, shown: bool, unit: str = "B") -> tqdm:
    """A bar on stderr that appears only when the work takes over a second."""
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, disable=not shown, delay=1, file=sys.stderr)


def size_text(count: int) -> str:
    """Bytes for people: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count /= 1000
    return f"{count:.3g} TB"
