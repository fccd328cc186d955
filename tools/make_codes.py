"""Makes codes of the speech in a manifest, for the Talker to learn: reads conversations that an assistant speaks in,

  {"role": "assistant", "content": [{"type": "text", "text": "Hello."}, {"type": "audio", "audio": "hello.wav"}]}

and writes them with "codes": […] in each of these sounds. The codes are the codec encoder's, which lies beside the
checkpoint. Media paths stay right in the new manifest; conversations without speech stay as they are; broken ones are
left out and told, up to a share of --max-broken. With a recogniser, so are recordings of something else than is
written: those of which it hears more than --max-wer of the words otherwise.

Example:
  python -m tools.make_codes Qwen2.5-Omni-7B data/speech.jsonl data/coded.jsonl
  python -m tools.make_codes Qwen2.5-Omni-7B speech.jsonl coded.jsonl --recogniser whisper:DIR --max-broken 0.2
"""

import argparse
import collections
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.data.chat_template import spoken
from omni_jax.data.speech import SPEECH_RATE, load_speech
from omni_jax.errors import OmniError, require
from omni_jax.inference.codec import Codec
from omni_jax.training.codebook import codebook_metrics
from omni_jax.training.config import Source
from omni_jax.training.manifests import Line, Manifest
from omni_jax.training.readers import READERS
from omni_jax.training.recognisers import Recogniser, find
from omni_jax.training.spoken import word_error_rate
from omni_jax.weights.files import progress_bar, whole_file
from tools._cli import parser, run
from tools._examples import check_broken, sound_of, text_of
from tools._manifests import check_out, json_line, relocated
from tools._speaking import SPECS


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = _parser().parse_args(argv)
    started = time.perf_counter()
    require(0 <= arguments.max_broken <= 1, "--max-broken", f"{arguments.max_broken} must lie from 0 to 1")
    check_out(arguments.out, str(arguments.out))
    require(arguments.max_wer >= 0, "--max-wer", f"{arguments.max_wer} must not be below 0")
    recogniser = arguments.recogniser and find(arguments.recogniser)
    manifest = Manifest(Source(arguments.manifest, form=arguments.form))
    codec = Codec.load(arguments.checkpoint, arguments.mesh, needs=("codec_encoder",))
    usage, counts, broken = np.zeros(len(codec.table), np.float32), collections.Counter(), {}
    with whole_file(arguments.out) as partial, partial.open("w", encoding="utf-8") as file:
        for line in _shown(manifest):
            try:
                record, codes = coded(line, codec, arguments.out.parent)
                if recogniser:
                    check_words(line, recogniser, arguments.max_wer)
            except OmniError as error:
                broken[line.name] = str(error)
                check_broken(broken, len(manifest), arguments.max_broken)
                continue
            file.write(json_line(record))
            counts.update(conversations=1, spoken_turns=len(codes), codes=sum(map(len, codes)))
            np.add.at(usage, np.concatenate([np.zeros(0, int), *codes]), 1)
        require(counts["codes"] > 0, arguments.manifest, "has no speech to make codes of; give an assistant's turn "
                '{"type": "audio", "audio": FILE}')
    metrics = codebook_metrics(usage)
    return {"manifest": str(arguments.out), **counts, "used_codes": int(metrics["used_codes"]),
            "known_codes": len(usage), "perplexity": round(float(metrics["perplexity"]), 2),
            "seconds_of_speech": round(counts["codes"] * codec.config.samples_per_code / SPEECH_RATE, 2),
            "broken": broken, "seconds": round(time.perf_counter() - started, 2)}


def _shown(manifest: Manifest) -> Iterator[Line]:
    """The lines, behind a progress bar."""
    with progress_bar(len(manifest), "encoding", sys.stderr.isatty(), " conversations") as bar:
        for line in manifest:
            yield line
            bar.update()


def coded(line: Line, codec: Codec, folder: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A line's record with codes, its media paths from `folder` on, and the codes made, one for each recording of an
    assistant. Raises OmniError."""
    sounds = [sound for sound in spoken(line.conversation()) if sound and sound.get("audio") is not None]
    codes = [codec.encode(load_speech(sound["audio"])) for sound in sounds]
    record, left = relocated(line, folder), iter(codes)
    return {**record, "messages": [_with_codes(message, left) for message in record["messages"]]}, codes


def check_words(line: Line, recogniser: Recogniser, most: float) -> None:
    """Raises OmniError if a recording of an assistant is heard to say something else than its turn's text."""
    for message in line.conversation():
        if message["role"] != "assistant" or sound_of(message).get("audio") is None:
            continue
        source, text = sound_of(message)["audio"], text_of(message)
        heard = recogniser(load_speech(source), SPEECH_RATE).text
        require(word_error_rate(text, heard) <= most, str(source), f"is heard as {heard!r}, and {text!r} is written; "
                "mend the transcript, or leave the recording out")


def _with_codes(message: Mapping[str, Any], codes: Iterator[np.ndarray]) -> Mapping[str, Any]:
    """An assistant's message with the next codes in each of its recordings; others as they are."""
    if message["role"] != "assistant" or isinstance(message["content"], str):
        return message
    content = [{**item, "codes": next(codes).tolist()} if _is_recording(item) else item for item in message["content"]]
    return {**message, "content": content}


def _is_recording(item: Any) -> bool:
    return isinstance(item, Mapping) and any(item.get(key) is not None for key in ("audio", "audio_url"))


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("checkpoint", metavar="CHECKPOINT", help="a directory of either kind, with a codec encoder")
    made.add_argument("manifest", metavar="IN", help="conversations, one a line")
    made.add_argument("out", type=Path, metavar="OUT", help="the manifest to write")
    made.add_argument("--form", choices=tuple(READERS), default="messages", help="of IN")
    made.add_argument("--recogniser", metavar="SPEC", help=f"what compares recordings with their texts: {SPECS}")
    made.add_argument("--max-wer", type=float, default=0.5, metavar="X", help="word errors that may be (0.5)")
    made.add_argument("--max-broken", type=float, default=0.01, metavar="SHARE", help="that may be left out (0.01)")
    made.add_argument("--mesh", default="", help='devices, as in "data=1,model=4" (default: one)')
    return made


if __name__ == "__main__":
    run(main)
