"""Measures a model's replies over a manifest of conversations.

    python -m tools.evaluate --model M --manifest questions.jsonl                     # the metrics that its lines name
    python -m tools.evaluate --model M --manifest speech.jsonl --metrics wer,cer --out results.jsonl   # again: goes on
    python -m tools.evaluate --model M --manifest held_out.jsonl --metrics perplexity --mesh fsdp=2,model=4 --json
    python -m tools.evaluate --model M --manifest speech.jsonl --metrics speech_wer,pause_error,ended --say \\
        --recogniser whisper:faster-whisper-large-v3 --wavs heard      # the Talker, saying the references

A line: {"messages": [{"role": "user", "content": …}, …, {"role": "assistant", "content": the reference}]} and, where
wanted, "id", "metric": a name or a list, "answers": all references that count, "choices": of which the reference is one
(its letter or text), "boxes": [[x1, y1, x2, y2], …] (left out: those in the reference) and "size": [width, height] of
the picture that they were drawn on (left out: their pixels are those of the picture as the model sees it, resized),
"tolerance": of a number, relative, and "kind": a name; each kind's figures are given by themselves as well. Paths of
media count from the manifest. Replies are greedy, without a repetition penalty, and spoken where a metric listens: the
reply by a line's own speaker, {"type": "audio", "audio": a recording of the voice, "speaker": name} in its last
message, else by --speaker.

Metrics (definitions: omni_jax/training/metrics.py): {names}.
"""

import argparse
import dataclasses
import math
import os
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import omni_jax
from omni_jax import Omni, OmniError
from omni_jax.data.batch import Prompt
from omni_jax.data.sources import resolve
from omni_jax.errors import require
from omni_jax.inference.likelihood import answered, log_likelihoods
from omni_jax.inference.replies import Options, Reply
from omni_jax.inference.sampling import row_seeds
from omni_jax.training.boxes import scaled
from omni_jax.training.config import Source
from omni_jax.training.metrics import METRICS, Answer, summary
from omni_jax.weights.files import progress_bar
from tools import _cli
from tools._examples import MEDIA, Example, check_broken, check_metrics, mistimed, read, with_media
from tools._options import add_device_options, add_manifest_options, check_options
from tools._results import Results, digest
from tools._speaking import (
    SPECS,
    VOICE_SPECS,
    Listeners,
    add_talker_options,
    ended,
    find_listeners,
    keep_sound,
    sounds_directory,
    talker_options,
)

WINDOW = 4  # batches whose prompts are held at a time, to be put together by their lengths
GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
Prepared = tuple[Example, Prompt]


@dataclasses.dataclass(frozen=True)
class Asking:
    """How replies are asked for and listened to. speaker: of lines that name none; say: the references are given as the
    replies; wavs: where speech is kept."""

    options: Options
    speaker: str | None
    seed: int
    say: bool
    listeners: Listeners
    wavs: Path | None


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    parser = _cli.parser(__doc__.replace("{names}", ", ".join(METRICS)))
    parser.add_argument("--model", required=True, help="a checkpoint directory")
    add_manifest_options(parser, "examples")
    parser.add_argument("--metrics", type=lambda text: tuple(filter(None, text.split(","))), default=(), metavar="A,B",
                        help="for all lines (left out: those that a line names, else choice or exact)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="conversations at a time")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--system", metavar="S", help="the system message of conversations without one")
    parser.add_argument("--media", choices=MEDIA, default="given", help="ask about another example's media, or without "
                        "any: what is right then was known without looking or listening; or with frames at times that "
                        "do not fit the sound")
    parser.add_argument("--use-audio-in-video", action="store_true", help="hear the videos as well")
    parser.add_argument("--out", metavar="FILE", help="a JSON line per example; if it exists, what it lacks is done")
    parser.add_argument("--say", action="store_true",
                        help="the references are said as the replies, so that speech alone is judged")
    parser.add_argument("--recogniser", metavar="SPEC", help=f"what writes down the speech: {SPECS}")
    parser.add_argument("--voice-encoder", metavar="SPEC", help=f"for speaker_similarity: {VOICE_SPECS}")
    add_talker_options(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="of the codes of speech (0)")
    parser.add_argument("--wavs", metavar="DIR", help="keep the speech there")
    add_device_options(parser)
    arguments = parser.parse_args(argv)
    _check(arguments)
    told = evaluate(arguments)
    if arguments.json:
        return told
    print(table(told))
    return None


def _check(arguments: argparse.Namespace) -> None:
    check_metrics(arguments.metrics)
    check_options(arguments, batch=1, max_new_tokens=1)


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads, answers what is not answered yet, and sums up."""
    started = time.perf_counter()
    source = Source(arguments.manifest, form=arguments.form)
    examples, broken = read(source, arguments.metrics, arguments.system, arguments.limit, arguments.say)
    count = len(examples) + len(broken)
    check_broken(broken, count, arguments.max_broken)
    examples = with_media(examples, arguments.media)
    listeners = _listeners(arguments, examples)
    results = Results(arguments.out, _settings(arguments))
    answer = lambda todo: _answers(arguments, todo, listeners)
    answered = results.complete(examples, answer, "id", broken, arguments.max_broken)
    kinds = {example.kind for example in examples}
    groups = sorted(filter(None, kinds)) if len(kinds) > 1 else ()
    return {"examples": count, "answered_now": answered, "broken": broken,
            "seconds": round(time.perf_counter() - started, 3), "metrics": _summed_up(results.lines, examples),
            "kinds": {kind: _summed_up(results.lines, [example for example in examples if example.kind == kind])
                      for kind in groups}}


def _summed_up(lines: dict[str, dict[str, Any]], examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """{metric: its summary} over these examples."""
    statistics = defaultdict(list)
    for example in examples:
        for name, numbers in lines.get(example.id, {"statistics": {}})["statistics"].items():
            statistics[name].append(numbers)
    return {name: summary(name, rows) for name, rows in statistics.items()}


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What results depend on."""
    names = ("form", "max_new_tokens", "system", "use_audio_in_video", "dtype")
    # What was not given is left out: results from before there was such a setting can be gone on with.
    later = {"media": arguments.media if arguments.media != "given" else None, "say": arguments.say or None,
             **talker_options(arguments),
             **{name: getattr(arguments, name) for name in ("recogniser", "voice_encoder", "speaker", "seed")}}
    return {"model": os.path.realpath(arguments.model), "manifest_sha256": digest(arguments.manifest),
            "metrics": list(arguments.metrics), **{name: getattr(arguments, name) for name in names},
            **{name: value for name, value in later.items() if value is not None}}


def _listeners(arguments: argparse.Namespace, examples: Sequence[Example]) -> Listeners:
    """Those that the metrics want. Raises OmniError if one is missing."""
    wanted = {METRICS[name].listener: name for example in examples for name in example.metrics}
    for kind, specs in (("recogniser", SPECS), ("voice_encoder", VOICE_SPECS)):
        require(kind not in wanted or getattr(arguments, kind) is not None, wanted.get(kind, ""),
                f"wants --{kind.replace('_', '-')} {specs}")
    return find_listeners(arguments.recogniser, arguments.voice_encoder if "voice_encoder" in wanted else None)


def _answers(arguments: argparse.Namespace, todo: Sequence[Example], listeners: Listeners) -> Iterator[dict[str, Any]]:
    """Lines of results as they are ready, in the order of the manifest but for sorting inside a window."""
    shown = sys.stderr.isatty()
    speech = any("speech" in _needs(example) for example in todo)
    wavs = sounds_directory("--wavs", arguments.wavs)
    omni = omni_jax.load(arguments.model, mesh=arguments.mesh, dtype=arguments.dtype, speech=speech, progress=shown)
    options = Options(max_new_tokens=arguments.max_new_tokens, **talker_options(arguments), **GREEDY)
    checked = dataclasses.replace(options, return_audio=speech, speaker=arguments.speaker if speech else None)
    omni.request(checked, row_seeds(arguments.seed or 0, 1))
    asking = Asking(options, arguments.speaker, arguments.seed or 0, arguments.say, listeners, wavs)
    size, window = arguments.batch, WINDOW * arguments.batch
    with progress_bar(len(todo), "evaluating", shown, " examples") as bar:
        for first in range(0, len(todo), window):
            prepared: list[Prepared] = []
            for example in todo[first : first + window]:
                try:
                    prepared.append((example, _prompt(omni, example, arguments)))
                except OmniError as error:
                    bar.update()
                    yield {"id": example.id, "error": str(error)}
            prepared.sort(key=lambda pair: len(pair[1].token_ids))
            for start in range(0, len(prepared), size):
                batch = prepared[start : start + size]
                yield from _lines(omni, batch, size, asking)
                bar.update(len(batch))


def _prompt(omni: Omni, example: Example, arguments: argparse.Namespace) -> Prompt:
    """Raises OmniError if media are broken, or the context has no room for the replies that are given."""
    prompt = omni.prompt(example.question, arguments.use_audio_in_video)
    if arguments.media == "mistimed":
        prompt = mistimed(prompt, line_seed(arguments.seed or 0, example.id))
    for reply in [*_weighed(example), *(example.answer.references[:1] if arguments.say else ())]:
        answered(omni, prompt, reply)
    if "speech" in _needs(example):
        omni.voices.name(example.speaker or arguments.speaker)
    if "speaker_similarity" in example.metrics:
        resolve(example.answer.recording, "recording")
    require(example.size is None or any(info.kind == "image" for info in prompt.media), "size",
            "is given, but the conversation has no picture")
    return prompt


def _needs(example: Example) -> set[str]:
    return {METRICS[name].needs for name in example.metrics}


def _weighed(example: Example) -> list[str]:
    """The replies whose likelihood is asked for: the first reference, then the choices."""
    needs = _needs(example)
    return [*(example.answer.references[:1] if "loss" in needs else ()),
            *(example.answer.choices if "choice_losses" in needs else ())]


def _lines(omni: Omni, batch: Sequence[Prepared], size: int, asking: Asking) -> Iterator[dict[str, Any]]:
    replies = _replies(omni, batch, asking)
    losses = _losses(omni, batch, size)
    for example, prompt in batch:
        reply, told = replies.get(example.id), {}
        answer = dataclasses.replace(example.answer, reply=reply.text if reply else "",
                                     boxes=_seen_boxes(example, prompt), **losses[example.id])
        if "speech" in _needs(example):
            answer, told = _heard(omni, example, prompt, answer, reply, asking)
        statistics = {name: [float(n) for n in METRICS[name].statistics(answer)] for name in example.metrics}
        scores = {name: METRICS[name].total(np.asarray(numbers)) for name, numbers in statistics.items()}
        yield {"id": example.id, "reply": reply.text if reply else None, **told, "references": answer.references,
               "scores": {name: None if math.isnan(score) else score for name, score in scores.items()},
               "statistics": statistics}


def _heard(omni: Omni, example: Example, prompt: Prompt, answer: Answer, reply: Reply,
           asking: Asking) -> tuple[Answer, dict[str, Any]]:
    """The answer with its speech, and what the line of results tells of this."""
    speech = asking.listeners.hear(reply, ended(omni, prompt, asking.options, reply), answer.recording)
    told = {"heard": speech.heard.text, "ended": speech.ended, "seconds": round(len(speech.wave) / speech.rate, 3)}
    if asking.wavs:
        told["wav"] = str(keep_sound(asking.wavs, example.id, reply))
    return dataclasses.replace(answer, speech=speech), told


def _replies(omni: Omni, batch: Sequence[Prepared], asking: Asking) -> dict[str, Reply]:
    """{id: reply} of those that need one."""
    asked = [(example, prompt) for example, prompt in batch if _needs(example) & {"reply", "speech"}]
    if not asked:
        return {}
    examples, prompts = zip(*asked, strict=True)
    given = [answered(omni, prompt, example.answer.references[0]).tokens for example, prompt in asked] \
        if asking.say else None
    spoken = any("speech" in _needs(example) for example in examples)
    speakers = [example.speaker or asking.speaker for example in examples] if spoken else None
    options = dataclasses.replace(asking.options, return_audio=spoken, speaker=speakers, reply_ids=given)
    started = time.perf_counter()
    seeds = row_seeds([line_seed(asking.seed, example.id) for example in examples], len(prompts))
    request = omni.request(options, seeds)
    replies = omni.finish(omni.begin(list(prompts), request, started), request, started)
    return {example.id: reply for example, reply in zip(examples, replies, strict=True)}


def line_seed(seed: int, name: str) -> int:
    """The seed of the line of that id, which does not depend on the lines beside it."""
    return zlib.crc32(name.encode(), seed)


def _losses(omni: Omni, batch: Sequence[Prepared], size: int) -> dict[str, dict[str, Any]]:
    """{id: what of Answer.loss and Answer.choice_losses is needed}, `size` replies being weighed at a time."""
    pairs = [answered(omni, prompt, reply) for example, prompt in batch for reply in _weighed(example)]
    weighed = (values for first in range(0, len(pairs), size)
               for values in log_likelihoods(omni, pairs[first : first + size]))
    losses = {}
    for example, _ in batch:
        own = losses[example.id] = {}
        needs = _needs(example)
        if "loss" in needs:
            values = next(weighed)
            own["loss"] = (-float(values.sum(dtype=np.float64)), len(values))
        if "choice_losses" in needs:
            own["choice_losses"] = tuple(-float(next(weighed).sum(dtype=np.float64)) for _ in example.answer.choices)
    return losses


def _seen_boxes(example: Example, prompt: Prompt) -> tuple:
    """The wanted boxes in pixels of the (first) picture as the model sees it."""
    if example.size is None:
        return example.answer.boxes
    height, width = next(info.size for info in prompt.media if info.kind == "image")
    factor = (width / example.size[0], height / example.size[1])
    return tuple(scaled(box, factor) for box in example.answer.boxes)


def table(told: dict[str, Any]) -> str:
    """The summary for people."""
    groups = {"": told["metrics"], **told["kinds"]}
    names = {(kind, name): f"{name} {kind}".strip() for kind, own in groups.items() for name in own}
    width = max(18, *map(len, names.values())) if names else 18
    rows = [f"{'metric':{width}} {'n':>6} {'value':>9}   95 % interval"]
    for (kind, name), title in names.items():
        row = groups[kind][name]
        rows.append(f"{title:{width}} {row['n']:6} {row['value']:9.4f}   {row['low']:.4f} .. {row['high']:.4f}")
    rows.append(f"{told['examples']} examples, {told['answered_now']} answered now, {len(told['broken'])} broken, "
                f"{told['seconds']:.1f} s")
    return "\n".join([*rows, *(f"broken, {where}: {sentence}" for where, sentence in told["broken"].items())])


if __name__ == "__main__":
    _cli.run(main)
