"""What all commands share: exit status 0 or 1, one sentence for a user's error and no traceback, `--json`.

    def main(argv=None) -> dict:
        arguments = parser(__doc__).parse_args(argv)
        ...
        return summary      # printed as `key: value` lines, or as one JSON object with --json

    if __name__ == "__main__":
        run(main)
"""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from omni_jax.errors import OmniError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Parser(argparse.ArgumentParser):
    """argparse whose usage errors are one line and end with status 1; options are never guessed from their start."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {' '.join(message.split())}; see --help\n")


def parser(description: str, json_output: bool = True) -> Parser:
    """A parser whose help is `description` (the module's docstring, with its example) as it is laid out there."""
    made = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if json_output:
        made.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return made


def size(text: str) -> int:
    """argparse type: bytes from `2GB`, `500MB`, `1GiB` or a plain number."""
    number = text.strip().upper().rstrip("BIKMG")
    unit = text.strip().upper()[len(number):]
    try:
        value = int(float(number) * _UNITS[unit if unit != "B" else ""])
    except (KeyError, ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2GB or 500MB") from None
    if value < 1:
        raise argparse.ArgumentTypeError("a size must be positive")
    return value


def run(main: Callable[[list[str] | None], dict[str, Any] | None], argv: list[str] | None = None) -> NoReturn:
    """Runs a command and exits. `main`'s result, if any, is printed; an OmniError is one line on stderr."""
    # A polite end (a scheduler's TERM) must clean up as Ctrl-C does.
    with contextlib.suppress(ValueError):  # not in the main thread: keep the handler there is
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        summary = main(argv)
        if summary is not None:
            show(summary, "--json" in (sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except OmniError as error:
        sys.exit(_told(error))
    except KeyboardInterrupt:
        sys.exit(_told("interrupted"))
    except BrokenPipeError:  # the reader of our output has gone; so must Python's own flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO):
            raise
        sys.exit(_told(f"{error.filename or 'output'}: {error.strerror}"))
    sys.exit(0)


def show(summary: dict[str, Any], as_json: bool) -> None:
    """Prints a summary for people or for machines."""
    if as_json:
        print(json.dumps(summary))
        return
    for key, value in summary.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{key.replace('_', ' ')}: {text}")


def _told(sentence: object) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 1


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
