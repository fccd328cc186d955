"""Makes a small data set of speech to try training on, with flite: digits and short words in phrases of two to five.

Each text is spoken by two voices, a line each: {"messages": [{"role": "system", "content": "Speak."}, {"role": "user",
"content": "Say: 3, 1 blue."}, {"role": "assistant", "content": [{"type": "text", "text": "3, 1 blue."}, {"type":
"audio", "audio": "….wav", "speaker": "Chelsie"}]}]}. Digits are figures, for a small Talker that reads letter by letter
soon loses its place in words. A comma is a pause of 0.25 s. Writes OUT/train.jsonl and OUT/held_out.jsonl, of each
also the phrases of digits alone and the others (train_digits.jsonl, train_words.jsonl, …), and grammars of the words
for the recogniser pocketsphinx, OUT/digits.jsgf and OUT/words.jsgf. No held-out phrase is trained on, whatever its
commas. The same seed gives the same data. flite is Debian's package of that name, under a licence like BSD's.

Example:
  python -m tools.smoke_speech /tmp/speech --train 600 --held-out 60 --seed 0
"""

import concurrent.futures
import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np

from omni_jax.data.audio import decode_sound
from omni_jax.data.sources import Source
from omni_jax.errors import OmniError, require
from omni_jax.training.spoken import trimmed
from omni_jax.training.texts import DIGITS
from omni_jax.weights.files import progress_bar, whole_directory
from tools._cli import parser, run
from tools._sound import RATE, write_wav

WORDS = ("apple", "bird", "black", "blue", "brother", "doctor", "evening", "fish", "garden", "green", "horse", "house",
         "market", "morning", "mother", "mountain", "music", "orange", "paper", "red", "river", "sister", "summer",
         "table", "tree", "water", "white", "window", "winter", "yellow")
KINDS = {"digits": DIGITS, "words": DIGITS + WORDS}
VOICES = {"Chelsie": "slt", "Ethan": "rms"}  # speakers of the released checkpoints: flite's voices
LENGTHS = (2, 5)  # words of a phrase
COMMA = 0.3  # share of the places between words that have one
PAUSE, MARGIN = 0.25, 0.1  # seconds of a comma, and of silence at both ends
HELD_OUT = 5  # one phrase in so many
PROCESSES = 2


def is_held_out(words: Sequence[str]) -> bool:
    """Whether a phrase is never trained on: decided by its words, not drawn."""
    places = [KINDS["words"].index(word) for word in words]
    return sum(k * place for k, place in enumerate(places, 1)) % HELD_OUT == 0


def phrase(kind: str, held_out: bool, rng: np.random.Generator) -> str:
    """As in "three, one four.", which is how it is said."""
    while True:
        words = rng.choice(KINDS[kind], rng.integers(LENGTHS[0], LENGTHS[1] + 1)).tolist()
        if is_held_out(words) == held_out:
            commas = rng.random(len(words) - 1) < COMMA
            return "".join(word + ("," if comma else "") + " "
                           for word, comma in zip(words, [*commas, False], strict=True)).strip() + "."


def phrases(count: int, held_out: bool, kinds: Sequence[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    """(kind, text) of so many different ones, of each kind in turn."""
    found: dict[str, str] = {}
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        found.setdefault(phrase(kind, held_out, rng), kind)
    return [(kind, text) for text, kind in found.items()]


def flite(text: str, voice: str, path: Path) -> np.ndarray:
    """float32 [samples] at RATE, without the silence around; `path` is used and removed. Raises OmniError."""
    run_flite(text, voice, path)
    samples, rate = decode_sound(Source(str(path), path=str(path)))
    path.unlink()
    return librosa.resample(trimmed(samples, rate), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")


def run_flite(text: str, voice: str, path: Path, *options: str) -> str:
    """Has the text said into a WAV file; returns what flite prints. Raises OmniError."""
    command = ["flite", "-voice", voice, *options, "-t", text, "-o", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    require(ended.returncode == 0 and path.is_file(), f"flite -voice {voice}",
            f"failed ({ended.stderr.strip()[:200]}); install Debian's package flite")
    return ended.stdout


def spoken(text: str, voice: str, path: Path) -> None:
    """Writes a phrase's sound to `path`. Each part between commas is spoken by itself: flite's own pauses differ from
    voice to voice, and are often too short to be told from the stops of consonants."""
    pause, margin = (np.zeros(int(seconds * RATE), np.float32) for seconds in (PAUSE, MARGIN))
    parts = [flite(part, voice, path.with_suffix(".part.wav")) for part in text.split(",")]
    pieces = [piece for part in parts for piece in (part, pause)][:-1]
    write_wav(path, np.concatenate([margin, *pieces, margin]))


def write(out: Path, part: str, count: int, kinds: Sequence[str], rng: np.random.Generator, bar: Any) -> None:
    """The lines of `part` (train or held_out), their sounds and their manifests."""
    texts = phrases(-(-count // len(VOICES)), part == "held_out", kinds, rng)
    lines = [(f"{part}-{i:05d}-{speaker}", kind, text, speaker) for i, (kind, text) in enumerate(texts)
             for speaker in VOICES][:count]
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(spoken, text, VOICES[speaker], out / "sounds" / f"{name}.wav")
                for name, _, text, speaker in lines]
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for kind in (None, *kinds):
        chosen = [record(*line) for line in lines if kind in (None, line[1])]
        path = out / f"{part}{f'_{kind}' if kind else ''}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in chosen))


def record(name: str, kind: str, text: str, speaker: str) -> dict[str, Any]:
    """A line of a manifest."""
    sound = {"type": "audio", "audio": f"sounds/{name}.wav", "speaker": speaker}
    text = re.sub("|".join(DIGITS), lambda found: str(DIGITS.index(found[0])), text)
    return {"id": name, "kind": kind, "messages": [
        {"role": "system", "content": "Speak."},
        {"role": "user", "content": f"Say: {text}"},
        {"role": "assistant", "content": [{"type": "text", "text": text}, sound]}]}


def grammar(name: str, words: Sequence[str], several: bool = True) -> str:
    """JSGF: one or more of the words, in any order; or one alone."""
    phrase = "<word>+" if several else "<word>"
    return f"#JSGF V1.0;\ngrammar {name};\npublic <phrase> = {phrase};\n<word> = {' | '.join(words)};\n"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = _parser().parse_args(argv)
    counts = {"train": arguments.train, "held_out": arguments.held_out}
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    if min(counts.values()) < len(kinds) * len(VOICES):
        raise OmniError(f"--train and --held-out must be {len(kinds) * len(VOICES)} or more, one line of each kind and "
                        "voice")
    require(shutil.which("flite") is not None, "flite", "is not installed; run apt-get install flite")
    started, rng = time.perf_counter(), np.random.default_rng(arguments.seed)
    with whole_directory(arguments.out) as out, progress_bar(sum(counts.values()), "speaking", True, "") as bar:
        (out / "sounds").mkdir()
        for part, count in counts.items():
            write(out, part, count, kinds, rng, bar)
        for kind in kinds:
            (out / f"{kind}.jsgf").write_text(grammar(kind, KINDS[kind]))
    return {"directory": str(arguments.out), **counts, "speakers": list(VOICES),
            "seconds": round(time.perf_counter() - started, 2)}


def _parser():
    made = parser(__doc__)
    made.add_argument("out", type=Path, metavar="OUT", help="the directory to write; it must not exist")
    made.add_argument("--train", type=int, default=600, help="lines to train on (default 600)")
    made.add_argument("--held-out", type=int, default=60, help="lines to evaluate on (default 60)")
    made.add_argument("--kind", choices=tuple(KINDS), help="of the phrases (default: both, in turn)")
    made.add_argument("--seed", type=int, default=0)
    return made


if __name__ == "__main__":
    run(main)
