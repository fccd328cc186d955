"""Speaks a manifest of conversations: the codes of its spoken turns by Token2Wav, or their texts by the Talker.

    python -m tools.speak --model M --manifest texts.jsonl --out spoken --say      # the Talker says every reply
    python -m tools.speak --model M --manifest coded.jsonl --out copies            # codes of recordings, spoken again
    python -m tools.speak --model M --manifest coded.jsonl --out copies --recogniser whisper:faster-whisper-large-v3

A turn of an assistant is spoken if it has a sound, {"type": "audio", "audio": FILE, "speaker": NAME, "codes": […]}, or
with --say if it has words. Its codes are spoken as they are; where it has none, and always with --say, the Talker says
its text, as a reply to what stands before it. DIR gets manifest.jsonl, the same conversations with "audio" (from DIR
on), "codes" and "speaker" in each spoken turn, and the sounds, wavs/NNNNN.wav. A conversation whose speech did not come
to an end by itself is left out, and so are broken ones. This is the speech that a codec encoder learns to read back
(objective distill).

Told besides: "mel_distance", between recordings and what was spoken of their codes (mean L1 of natural log mels over
their common length), "wer" with --recogniser, and "real_time_factor" (seconds of work, loading aside, per second).
"""

import argparse
import collections
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
from omni_jax.config import MelConfig, OmniConfig
from omni_jax.data.chat_template import spoken
from omni_jax.data.speech import SPEECH_RATE, check_codes, load_speech
from omni_jax.errors import require
from omni_jax.inference.codec import mel_of
from omni_jax.inference.likelihood import Answered, answered
from omni_jax.inference.loading import checkpoint_directory, load_voices
from omni_jax.inference.replies import Options, Reply
from omni_jax.inference.sampling import row_seeds
from omni_jax.inference.voices import Voices
from omni_jax.training import texts
from omni_jax.training.config import Source
from omni_jax.training.manifests import Line, Manifest
from omni_jax.weights import beside
from omni_jax.weights.files import progress_bar, whole_directory
from tools import _cli
from tools._examples import check_broken, sound_of, text_of, unspoken
from tools._manifests import json_line, relocated
from tools._options import add_device_options, add_manifest_options, check_options
from tools._sound import write_wav
from tools._speaking import SPECS, Listeners, add_talker_options, ended, find_listeners, talker_options


@dataclasses.dataclass(frozen=True)
class Turn:
    """What is to be spoken: message `message` of line `line`, both from 0, after the messages `before`. number: of its
    sound; codes: None if its text is to be said; recording: what its codes were made of, if it has any."""

    number: int
    line: int
    message: int
    before: tuple[dict[str, Any], ...]
    text: str
    speaker: str | None
    codes: np.ndarray | None
    recording: Any


@dataclasses.dataclass(frozen=True)
class Job:
    """A turn that can be spoken: its speaker, its prompt and reply if it is to be said, and its recording, float32
    [samples]."""

    turn: Turn
    speaker: str
    said: Answered | None
    recording: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Speaking:
    """What speaks. omni: None if there is no text to say."""

    voices: Voices
    omni: Omni | None
    options: Options
    seed: int

    def job(self, turn: Turn) -> Job:
        """Raises OmniError for a turn that cannot be spoken."""
        name, said, recording = self.voices.name(turn.speaker or self.options.speaker), None, None
        if turn.codes is None:
            said = answered(self.omni, self.omni.prompt(turn.before), turn.text)
        elif turn.recording is not None:
            recording = load_speech(turn.recording)
        return Job(turn, name, said, recording)

    def replies(self, jobs: Sequence[Job]) -> list[Reply | None]:
        """Speech of jobs that are all said, or all of given codes; None where it did not end by itself."""
        draw = lambda number: np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        seeds = row_seeds([int(draw(job.turn.number)) for job in jobs], len(jobs))
        names = [job.speaker for job in jobs]
        if jobs[0].said is None:
            codes = [job.turn.codes for job in jobs]
            waves = self.voices.spoken(codes, names, seeds, self.options.solve, self.options.solver_steps)
            return [Reply(job.turn.text, [], {}, *own) for job, *own in zip(jobs, codes, waves, strict=True)]
        options = dataclasses.replace(self.options, speaker=names, reply_ids=[job.said.tokens for job in jobs])
        started, request = time.perf_counter(), self.omni.request(options, seeds)
        prompts = [job.said.prompt for job in jobs]
        replies = self.omni.finish(self.omni.begin(prompts, request, started), request, started)
        whole = lambda prompt, reply: len(reply.codes) > 0 and ended(self.omni, prompt, options, reply)
        return [reply if whole(*pair) else None for *pair, reply in zip(prompts, replies, replies, strict=True)]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = _cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint directory")
    add_manifest_options(parser, "lines")
    parser.add_argument("--out", required=True, metavar="DIR", help="the directory to write; it must not exist")
    parser.add_argument("--say", action="store_true", help="the Talker says the texts, whatever codes there are")
    add_talker_options(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="turns at a time (8)")
    parser.add_argument("--recogniser", metavar="SPEC", help=f"what writes down the speech: {SPECS}")
    add_device_options(parser)
    arguments = parser.parse_args(argv)
    _check(arguments)
    arguments.model = str(checkpoint_directory(arguments.model))  # a bundled model's, if it is named
    return speak(arguments)


def _check(arguments: argparse.Namespace) -> None:
    check_options(arguments, batch=1, seed=0)


def speak(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads, speaks, writes the new directory and sums up. Raises OmniError."""
    started, listeners = time.perf_counter(), find_listeners(arguments.recogniser, None)
    config, manifest = OmniConfig.load(arguments.model), Manifest(Source(arguments.manifest, form=arguments.form))
    lines = [manifest[index] for index in range(min(len(manifest), arguments.limit or len(manifest)))]
    turns, broken = _read(lines, config, arguments)
    heard = beside.exists(arguments.model, beside.CODEC)  # with what mels the codes are made, if that is known
    mel = beside.load_codec_config(arguments.model).mel if heard else config.token2wav_config.mel
    sums, done = collections.Counter(), {}
    with whole_directory(arguments.out) as folder:
        (folder / "wavs").mkdir()
        speaking = _load(arguments, any(turn.codes is None for turn in turns))
        for turn, job, reply in _spoken(speaking, turns, arguments.batch, sums):
            if isinstance(reply, OmniError):
                broken[lines[turn.line].name] = str(reply)
                check_broken(broken, len(lines), arguments.max_broken)
            elif reply is None:
                sums["cut_off"] += 1
            else:
                write_wav(_wav(folder, turn), reply.waveform)
                done[turn.number] = {"speaker": job.speaker, "codes": reply.codes.tolist()}
                sums.update(_measured(mel, job, reply, listeners))
        kept = _write(folder, Path(arguments.out), lines, turns, done, broken)
    return {"directory": arguments.out, "conversations": kept, **_summed_up(sums, turns), "broken": broken,
            "seconds": round(time.perf_counter() - started, 2)}


def _read(lines: Sequence[Line], config: OmniConfig,
          arguments: argparse.Namespace) -> tuple[list[Turn], dict[str, str]]:
    """What is to be spoken, and what is wrong with lines that cannot be: {where: sentence}. Raises OmniError."""
    require(config.token2wav_config is not None, arguments.model, "has no Token2Wav; give a whole checkpoint")
    turns: list[Turn] = []
    broken: dict[str, str] = {}
    for index, line in enumerate(lines):
        try:
            own = list(_turns_of(line, index, config, arguments.say))
            turns += [dataclasses.replace(turn, number=len(turns) + i) for i, turn in enumerate(own)]
        except OmniError as error:
            broken[line.name] = str(error)
    check_broken(broken, len(lines), arguments.max_broken)
    require(bool(turns), arguments.manifest, 'has no turn to speak; give an assistant\'s turn {"type": "audio", '
            '"codes": […]}, or say its texts with --say')
    return turns, broken


def _turns_of(line: Line, index: int, config: OmniConfig, say: bool) -> Iterator[Turn]:
    """What is to be spoken of line `index`, not numbered yet. Raises OmniError."""
    messages = line.conversation()
    sounds = iter(spoken(messages))
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        sound, text = next(sounds), text_of(message)
        words = bool(texts.spoken_normal(text))
        if sound is None and not (say and words):
            continue
        sound, codes = sound or {}, None
        if not say and sound.get("codes") is not None:
            codes = check_codes(sound["codes"], config.token2wav_config.dit_config.codec_rows, f"message {place}")
        require(codes is not None or (words and place > 0), f"message {place}", "has no words to say, or there is "
                "nothing that they reply to; add these, or codes with tools.make_codes")
        yield Turn(0, index, place, tuple(map(unspoken, messages[:place])), text, sound.get("speaker"), codes,
                   sound.get("audio"))


def _load(arguments: argparse.Namespace, says: bool) -> Speaking:
    """The checkpoint, or what speaks codes alone of it. Raises OmniError."""
    shown = sys.stderr.isatty()
    options = Options(return_audio=True, speaker=arguments.speaker, **talker_options(arguments))
    if not says:
        voices, omni = load_voices(arguments.model, arguments.mesh, shown), None
        voices.name(arguments.speaker)
    else:
        omni = omni_jax.load(arguments.model, mesh=arguments.mesh, dtype=arguments.dtype, speech=True, progress=shown)
        omni.request(options, row_seeds(0, 1))
        voices = omni.voices
    return Speaking(voices, omni, options, arguments.seed)


def _spoken(speaking: Speaking, turns: Sequence[Turn], size: int,
            sums: collections.Counter) -> Iterator[tuple[Turn, Job | None, Reply | OmniError | None]]:
    """All turns, those of like length together: their speech, None where it was cut off, or what is wrong with them."""
    length = lambda turn: (len(turn.text) if turn.codes is None else len(turn.codes), turn.number)
    with progress_bar(len(turns), "speaking", sys.stderr.isatty(), " turns") as bar:
        for said in (False, True):
            own = sorted((turn for turn in turns if (turn.codes is None) is said), key=length)
            for first in range(0, len(own), size):
                started, jobs = time.perf_counter(), []
                for turn in own[first:first + size]:
                    try:
                        jobs.append(speaking.job(turn))
                    except OmniError as error:
                        yield turn, None, error
                replies = speaking.replies(jobs) if jobs else []
                sums["work"] += time.perf_counter() - started
                yield from ((job.turn, job, reply) for job, reply in zip(jobs, replies, strict=True))
                bar.update(len(own[first:first + size]))


def _measured(mel: MelConfig, job: Job, reply: Reply, listeners: Listeners) -> dict[str, float]:
    """What a spoken turn adds to the sums."""
    sums = {"turns": 1, "said": job.said is not None, "sound": len(reply.waveform) / SPEECH_RATE}
    if job.recording is not None:
        apart = mel_differences(job.recording, reply.waveform, mel)
        sums |= {"mel": float(apart.sum(dtype=np.float64)), "mel_numbers": apart.size}
    words = texts.spoken_normal(job.turn.text)
    if listeners.recogniser and words:
        heard = texts.spoken_normal(listeners.hear(reply, True).heard.text)
        sums |= dict(zip(("edits", "words"), texts.word_edits(heard, words), strict=True))
    return sums


def mel_differences(one: np.ndarray, other: np.ndarray, config: MelConfig) -> np.ndarray:
    """float32 [frames, M]: absolute differences of natural log mels over the common length of two sounds, float32
    [samples] at the mels' rate."""
    length = min(len(one), len(other))
    first, second = (mel_of(wave[:length], length // config.hop, config) for wave in (one, other))
    return np.abs(first - second)


def _wav(folder: Path, turn: Turn) -> Path:
    return folder / "wavs" / f"{turn.number:05}.wav"


def _write(folder: Path, out: Path, lines: Sequence[Line], turns: Sequence[Turn], done: dict[int, dict[str, Any]],
           broken: dict[str, str]) -> int:
    """The manifest of the conversations that are spoken whole; returns how many they are. The others' sounds are
    removed. Raises OmniError if none is left."""
    own = collections.defaultdict(list)
    for turn in turns:
        own[turn.line].append(turn)
    lost = {turn.line for turn in turns if turn.number not in done}
    for turn in turns:
        if turn.line in lost:
            _wav(folder, turn).unlink(missing_ok=True)
    require(not own.keys() <= lost, str(out), f"no speech of {len(turns)} turns came to an end by itself; raise "
            "--talker-max-new-tokens, or train the Talker on")
    kept = [index for index, line in enumerate(lines) if index not in lost and line.name not in broken]
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json_line(_record(lines[index], out, own[index], done)) for index in kept)
    return len(kept)


def _record(line: Line, out: Path, turns: Sequence[Turn], done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """A line with its new speech; its other media's paths start from `out`."""
    record = relocated(line, out)
    messages = list(record["messages"])
    for turn in turns:
        message = messages[turn.message]
        old = sound_of(message) if turn.codes is not None else {}  # with new codes, what else it says is of others
        new = {**old, "type": "audio", "audio": os.path.join("wavs", _wav(out, turn).name), **done[turn.number]}
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else unspoken(message)["content"]
        messages[turn.message] = {**message, "content": [*content, new]}
    return {**record, "messages": messages}


def _summed_up(sums: collections.Counter, turns: Sequence[Turn]) -> dict[str, Any]:
    told = {"turns": sums["turns"], "said": sums["said"], "cut_off": sums["cut_off"],
            "seconds_of_sound": round(sums["sound"], 2), "real_time_factor": round(sums["work"] / sums["sound"], 4)}
    if sums["mel_numbers"]:
        told["mel_distance"] = round(sums["mel"] / sums["mel_numbers"], 4)
    if sums["words"]:
        told["wer"] = round(sums["edits"] / sums["words"], 4)
    return told


if __name__ == "__main__":
    _cli.run(main)
