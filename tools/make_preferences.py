"""Makes pairs of better and worse speech to optimize the Talker by: it says each reply several times, and is judged.

    python -m tools.make_preferences --model M --manifest speech.jsonl --out pairs.jsonl \\
        --recogniser whisper:faster-whisper-large-v3 --samples 8 --margin 0.1

The manifest's lines are conversations that end with the assistant, with or without speech; its text is what is said, by
the speaker that its sound names, else by --speaker. The reward of a rendering is -(word error rate + --pause-weight *
pause errors over marks), see omni_jax/training/spoken.py. A line of OUT has the better codes and the worse in its last
message, {"type": "audio", "speaker": name, "codes": […], "worse": […]}, and of both, in this order, "preference":
{"rewards": […], "transcripts": […]}. Left out are lines whose rewards differ by less than --margin, and renderings that
are empty; one that reached --talker-max-new-tokens is never the better, and as the worse it is marked
"worse_cut_off": it has no end mark to learn from. An interrupted run goes on (from OUT.progress).
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import omni_jax
from omni_jax import Omni, OmniError
from omni_jax.data import chat_template
from omni_jax.data.batch import Prompt
from omni_jax.errors import require
from omni_jax.inference.likelihood import answered
from omni_jax.inference.replies import Options, Reply
from omni_jax.inference.sampling import row_seeds
from omni_jax.training import texts
from omni_jax.training.config import Source
from omni_jax.training.manifests import Line, Manifest
from omni_jax.training.spoken import Spoken, reward
from omni_jax.weights.files import progress_bar, whole_file
from tools import _cli
from tools._examples import check_broken, sound_of, text_of, unspoken
from tools._manifests import check_out, json_line, relocated
from tools._options import add_device_options, add_manifest_options, check_options
from tools._results import Results, digest
from tools._speaking import (
    SPECS,
    Listeners,
    add_talker_options,
    ended,
    find_listeners,
    keep_sound,
    sounds_directory,
    talker_options,
)


@dataclasses.dataclass(frozen=True)
class Job:
    """A conversation whose last turn is to be said. question: the messages before it; seeds: of its renderings."""

    id: str
    line: Line
    question: tuple[dict[str, Any], ...]
    text: str
    speaker: str | None
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Rendering:
    """One of them, with what it is worth."""

    reply: Reply
    speech: Spoken
    reward: float


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = _cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint directory")
    add_manifest_options(parser, "lines")
    parser.add_argument("--out", required=True, metavar="FILE", help="the manifest of pairs; it must not exist")
    parser.add_argument("--recogniser", required=True, metavar="SPEC", help=f"what writes down the speech: {SPECS}")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="renderings of each line (4)")
    parser.add_argument("--margin", type=float, default=0.1, metavar="X", help="by which rewards must differ (0.1)")
    parser.add_argument("--pause-weight", type=float, default=0.5, metavar="X", help="of pause errors (0.5)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="lines at a time, with all their renderings")
    add_talker_options(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--wavs", metavar="DIR", help="keep the sound of each pair there")
    add_device_options(parser)
    arguments = parser.parse_args(argv)
    _check(arguments)
    return make(arguments, find_listeners(arguments.recogniser, None))


def _check(arguments: argparse.Namespace) -> None:
    check_options(arguments, samples=2, batch=1)
    require(arguments.margin > 0 <= arguments.pause_weight, "--margin and --pause-weight",
            f"{arguments.margin} must be above 0, and {arguments.pause_weight} not below")
    require(arguments.talker_temperature != 0, "--talker-temperature", "0 says the same each time; give more")
    check_out(Path(arguments.out), f"--out {arguments.out}")


def make(arguments: argparse.Namespace, listeners: Listeners) -> dict[str, Any]:
    """Reads, says what has not been said yet, writes the pairs and sums up. Raises OmniError."""
    started, progress = time.perf_counter(), f"{arguments.out}.progress"
    jobs, broken = _read(arguments)
    check_broken(broken, len(jobs) + len(broken), arguments.max_broken)
    results = Results(progress, _settings(arguments))
    answer = lambda todo: _answers(arguments, todo, listeners)
    made = results.complete(jobs, answer, "line", broken, arguments.max_broken)
    lines = [results.lines[job.id] for job in jobs if job.id in results.lines]
    _write_pairs(Path(arguments.out), lines)
    os.remove(progress)
    return {"out": arguments.out, **_summed_up(lines), "made_now": made, "broken": broken,
            "seconds": round(time.perf_counter() - started, 3)}


def _read(arguments: argparse.Namespace) -> tuple[list[Job], dict[str, str]]:
    """What is to be said, and what is wrong with lines that cannot be: {where: sentence}."""
    jobs: list[Job] = []
    broken: dict[str, str] = {}
    lines = Manifest(Source(arguments.manifest, form=arguments.form))
    for index in range(min(len(lines), arguments.limit or len(lines))):
        try:
            jobs.append(_job(lines[index], np.random.SeedSequence([arguments.seed, index]), arguments.samples))
        except OmniError as error:
            broken[lines[index].name] = str(error)
    return jobs, broken


def _job(line: Line, seeds: np.random.SeedSequence, samples: int) -> Job:
    messages = line.conversation()
    chat_template.validate(messages)
    require(messages[-1]["role"] == "assistant" and len(messages) > 1, "conversation",
            "does not end with a reply by the assistant; add what is to be said")
    text = text_of(messages[-1])
    require(bool(texts.spoken_normal(text)), "conversation", "ends with a reply without words; add what is to be said")
    return Job(line.name.rpartition(":")[2], line, tuple(map(unspoken, messages[:-1])), text,
               sound_of(messages[-1]).get("speaker"), tuple(seeds.generate_state(samples).tolist()))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What results depend on."""
    names = ("form", "recogniser", "samples", "margin", "pause_weight", "speaker", "seed", "dtype", "wavs")
    return {"model": os.path.realpath(arguments.model), "manifest_sha256": digest(arguments.manifest),
            **talker_options(arguments), **{name: getattr(arguments, name) for name in names}}


def _answers(arguments: argparse.Namespace, todo: Sequence[Job], listeners: Listeners) -> Iterator[dict[str, Any]]:
    """Lines of results as they are ready."""
    shown = sys.stderr.isatty()
    wavs = sounds_directory("--wavs", arguments.wavs)
    options = Options(return_audio=True, speaker=arguments.speaker, **talker_options(arguments))
    omni = omni_jax.load(arguments.model, mesh=arguments.mesh, dtype=arguments.dtype, speech=True, progress=shown)
    omni.request(options, row_seeds(0, 1))
    with progress_bar(len(todo), "saying", shown, " lines") as bar:
        for first in range(0, len(todo), arguments.batch):
            prepared: list[tuple[Job, Prompt, np.ndarray]] = []
            for job in todo[first : first + arguments.batch]:
                try:
                    prompt = omni.prompt(job.question)
                    omni.voices.name(job.speaker)
                    prepared.append((job, prompt, answered(omni, prompt, job.text).tokens))
                except OmniError as error:
                    yield {"id": job.id, "error": str(error)}
            for job, renderings in _rendered(omni, prepared, options, listeners, arguments.pause_weight):
                yield _result(job, renderings, omni.voices.name(job.speaker or arguments.speaker), arguments, wavs)
            bar.update(len(todo[first : first + arguments.batch]))


def _rendered(omni: Omni, prepared: Sequence[tuple[Job, Prompt, np.ndarray]], options: Options, listeners: Listeners,
              pause_weight: float) -> Iterator[tuple[Job, list[Rendering]]]:
    """All renderings of some conversations, as one batch."""
    rows = [(*each, seed) for each in prepared for seed in each[0].seeds]
    if not rows:
        return
    options = dataclasses.replace(options, speaker=[job.speaker or options.speaker for job, *_ in rows],
                                  reply_ids=[tokens for *_, tokens, _ in rows])
    started = time.perf_counter()
    request = omni.request(options, row_seeds([seed for *_, seed in rows], len(rows)))
    replies = iter(omni.finish(omni.begin([prompt for _, prompt, *_ in rows], request, started), request, started))
    for job, prompt, _ in prepared:
        own = [next(replies) for _ in job.seeds]
        heard = [listeners.hear(reply, ended(omni, prompt, options, reply)) for reply in own]
        yield job, [Rendering(reply, speech, reward(job.text, speech, pause_weight))
                    for reply, speech in zip(own, heard, strict=True)]


def _result(job: Job, renderings: Sequence[Rendering], speaker: str, arguments: argparse.Namespace,
            wavs: Path | None) -> dict[str, Any]:
    """What the renderings were worth, and the record of their pair, if they make one."""
    said = texts.spoken_normal(job.text)
    edits = [texts.word_edits(texts.spoken_normal(each.speech.heard.text), said) for each in renderings]
    line = {"id": job.id, "statistics": {"rewards": [each.reward for each in renderings], "edits": edits},
            "ended": [each.speech.ended for each in renderings], "record": None}
    pair = best_and_worst(renderings)
    if pair and pair[0].reward - pair[1].reward >= arguments.margin:
        files = [keep_sound(wavs, f"{job.id}-{name}", each.reply)
                 for name, each in zip(("better", "worse"), pair, strict=True)] if wavs else None
        line["record"] = _record(job, pair, speaker, Path(arguments.out).absolute().parent, files)
    return line


def best_and_worst(renderings: Sequence[Rendering]) -> tuple[Rendering, Rendering] | None:
    """Of those that are not empty, the best that came to an end and the worst; None if there is no better one."""
    spoken = [each for each in renderings if len(each.reply.codes)]
    whole = [each for each in spoken if each.speech.ended]
    if not whole:
        return None
    best, worst = (choose(own, key=lambda each: each.reward) for choose, own in ((max, whole), (min, spoken)))
    return (best, worst) if best.reward > worst.reward else None


def _record(job: Job, pair: tuple[Rendering, Rendering], speaker: str, folder: Path,
            files: Sequence[Path] | None) -> dict[str, Any]:
    """The line with its pair; its paths start from `folder`, that of the new manifest."""
    record = relocated(job.line, folder)
    *others, last = record["messages"]
    codes = [each.reply.codes.tolist() for each in pair]
    sound = sound_of(last) | {"type": "audio", "speaker": speaker, "codes": codes[0], "worse": codes[1],
                              "worse_cut_off": not pair[1].speech.ended}
    if files:
        sound["audio"] = os.path.relpath(files[0].absolute(), folder)
    content = [{"type": "text", "text": job.text}, sound]
    return {**record, "messages": [*others, {**last, "content": content}], "preference": {
        "rewards": [each.reward for each in pair], "transcripts": [each.speech.heard.text for each in pair]}}


def _write_pairs(out: Path, lines: Sequence[dict[str, Any]]) -> None:
    """The manifest, whole or not at all. Raises OmniError if there is no pair."""
    records = [line["record"] for line in lines if line["record"]]
    if not records:
        cut = sum(not any(line["ended"]) for line in lines)
        os.remove(f"{out}.progress")
        raise OmniError(f"{out}: no pair was found in {len(lines)} lines, in {cut} of which no speech came to an end; "
                        "lower --margin, raise --samples, --talker-temperature or --talker-max-new-tokens, or train on")
    with whole_file(out) as partial:
        partial.write_text("".join(map(json_line, records)), encoding="utf-8")


def _summed_up(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """wer: of all renderings; the rewards of the pairs alone."""
    rewards = np.array([line["record"]["preference"]["rewards"] for line in lines if line["record"]])
    edits, words = np.array([pair for line in lines for pair in line["statistics"]["edits"]]).sum(0)
    return {"lines": len(lines), "pairs": len(rewards), "reward_better": round(float(rewards[:, 0].mean()), 4),
            "reward_worse": round(float(rewards[:, 1].mean()), 4), "wer": round(float(edits / words), 4),
            "ended": round(float(np.mean([each for line in lines for each in line["ended"]])), 4)}


if __name__ == "__main__":
    _cli.run(main)
