"""Shows the whole way in and out: omni-tiny answers, aloud, what it hears, sees and watches.

    python -m tools.demo --out out

omni-tiny, the small trained model that comes with the package, is asked aloud, about drawings and about a video with
its sound, and reads out a sentence that it has never said; what it says is in OUT/answer-1.wav and on. Writes also
OUT/positions.png (TMRoPE's three rows over the video with its sound) and OUT/frames.png (what the vision tower saw of
it). Of a checkpoint that is given instead (--model) it prints what went in, how fast, and the text; if it speaks,
OUT/reply.wav is its reply, streamed.
"""

import contextlib
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import omni_jax
from omni_jax import OmniError
from omni_jax.data.batch import Prompt
from omni_jax.data.video import load_video
from tools import _cli
from tools._sound import RATE, sink

ROOT = Path(__file__).parent.parent
TINY = "omni-tiny"
SAMPLES = ROOT / "omni_jax" / "assets" / "samples"
MOVING = "moving.mp4"
# (sample, or none; what is asked in writing)
QUESTIONS = (("question.flac", ""), ("question.flac", "What is said?"), ("butterfly.jpg", "What do you see?"),
             ("drawing.jpg", "What colour is the taxi?"), (MOVING, "What moved?"),
             (MOVING, "Was the beep before or after it moved?"), ("", "What do you see?"))
READ_OUT = "The elegant president copied the bus on Tuesday."  # the first that tools.tiny_data holds out
KINDS = {".flac": "audio", ".jpg": "image", ".mp4": "video"}
WATCHED = {"fps": 4, "resized_height": 112, "resized_width": 112}  # as the videos that omni-tiny learnt from
# omni-tiny's codes are clearest when none is drawn, and three steps of the solver are as clear as four.
GREEDY = {"talker_temperature": 0, "talker_max_new_tokens": 200, "solver_steps": 3, "use_audio_in_video": True}
CODES = 150  # of the streamed reply: 3 s; a random Talker does not end by itself
COLOURS = {"text": "#444444", "video": "#d1495b", "sound": "#00798c"}


def conversations() -> dict[str, tuple[list[dict[str, Any]], bool]]:
    """Name -> (conversation, use_audio_in_video)."""
    video = {"type": "video", "video": str(SAMPLES / "video.mp4")}
    picture = {"type": "image", "image": str(SAMPLES / "picture.jpg")}
    speech = {"type": "audio", "audio": str(SAMPLES / "speech.flac")}
    ask = lambda *content: [{"role": "user", "content": list(content)}]
    return {
        "a video with its sound": (ask(video, {"type": "text", "text": "What happens, and what is heard?"}), True),
        "a picture": (ask(picture, {"type": "text", "text": "What is on the table?"}), False),
        "speech": (ask(speech, {"type": "text", "text": "What does he say?"}), False),
        "all at once": (ask(picture, speech, video, {"type": "text", "text": "What have these in common?"}), False),
    }


def requests(omni: omni_jax.Omni) -> list[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """(title, conversation, options) of QUESTIONS and of READ_OUT, in its voices in turn."""
    made = [(f"{sample or 'no picture'}: {question}".strip(), _question(sample, question), {})
            for sample, question in QUESTIONS]
    read_out = {"reply_ids": [omni.reply_ids(READ_OUT)], "talker_max_new_tokens": 400}  # answers are shorter
    made.append(("read out:", _question("", f"Say: {READ_OUT}"), read_out))
    return [(title, conversation, {**GREEDY, **given, "speaker": speaker})
            for (title, conversation, given), speaker in zip(made, itertools.cycle(omni.speakers), strict=False)]


def ask(omni: omni_jax.Omni, out: Path) -> dict[str, Any]:
    """Streams what is said to the `requests` to OUT/answer-N.wav."""
    started, asked = time.perf_counter(), requests(omni)
    for _, conversation, options in asked:
        # Compiles, for each kind of media, length of prompt and length of a voice's reference.
        list(omni.stream(conversation, **options))
    print(f"  its programs compiled, or read from where they are kept, in {time.perf_counter() - started:.1f} s")
    results = {}
    for number, (title, conversation, options) in enumerate(asked, 1):
        path = out / f"answer-{number}.wav"
        print(f"  {title} ", end="")
        told = stream(omni, conversation, path, **options)
        print(f" ({path}: {told['audio_seconds']:.1f} s, first sound after {1e3 * told['first_audio_seconds']:.0f} ms, "
              f"real-time factor {told['real_time_factor']:.2f})")
        results[title] = told
    return results


def stream(omni: omni_jax.Omni, conversation: list, path: Path, **options: Any) -> dict[str, Any]:
    """Prints a reply as it comes, writes its sound to a WAV file, and tells when it came."""
    started, arrivals, samples, text = time.perf_counter(), [], 0, ""
    with sink(str(path)) as play:
        for chunk in omni.stream(conversation, return_audio=True, **options):
            if isinstance(chunk, omni_jax.TextChunk):
                print(chunk.text, end="", flush=True)
                text += chunk.text
            else:
                play(chunk.waveform)
                arrivals.append(time.perf_counter() - started)
                samples += chunk.waveform.size
    total, seconds = time.perf_counter() - started, samples / RATE
    return {"text": text, "first_audio_seconds": arrivals[0] if arrivals else total, "pieces": len(arrivals),
            "audio_seconds": seconds, "total_seconds": total, "real_time_factor": total / max(seconds, 1e-9)}


def _question(sample: str, question: str) -> list[dict[str, Any]]:
    kind = KINDS.get(Path(sample).suffix)
    options = WATCHED if kind == "video" else {}
    given = [{"type": kind, kind: str(SAMPLES / sample), **options}] if kind else []
    return [{"role": "user", "content": [*given, *([{"type": "text", "text": question}] if question else [])]}]


def describe(prompt: Prompt) -> list[str]:
    """What went in, a line per medium."""
    lines = []
    for info in prompt.media:
        size = f", {info.size[1]} x {info.size[0]} pixels" if info.size[0] else ""
        length = f", {info.seconds:.2f} s" if info.seconds else ""
        unit = "mel frames" if info.kind == "audio" else f"frames at {info.sampled_fps:.3f} fps"
        frames = f", {info.frames} {unit}" if info.frames else ""
        lines.append(f"  {info.kind} {Path(info.name).name}{size}{length}{frames}: {info.tokens} tokens")
    text = len(prompt.token_ids) - sum(info.tokens for info in prompt.media)
    return [*lines, f"  text and marks: {text} tokens; prompt: {len(prompt.token_ids)} tokens"]


def plot_positions(omni: omni_jax.Omni, conversation: list, prompt: Prompt, path: Path) -> None:
    """The three rows of TMRoPE over the prompt, coloured by what each token stands for."""
    ids = omni.position_ids(conversation, use_audio_in_video=True)
    kinds = np.full(len(prompt.token_ids), "text", dtype=object)
    for clip in prompt.clips:
        kinds[clip.positions] = "sound"
    for picture in prompt.pictures:
        kinds[picture.positions] = "video"
    figure, axes = plt.subplots(3, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for axis, row, name in zip(axes, ids, ("time", "height", "width"), strict=True):
        for kind, colour in COLOURS.items():
            where = np.flatnonzero(kinds == kind)
            axis.scatter(where, row[where], s=5, color=colour, label=f"{kind} ({len(where)} tokens)")
        axis.set_ylabel(f"{name} id")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper left", markerscale=3)
    axes[0].set_title("TMRoPE of a video with its sound: 25 time ids a second, chunks of 2 s, video first, then sound")
    axes[-1].set_xlabel("token of the prompt")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_frames(video: str, options: dict[str, int], path: Path) -> None:
    """The frames sampled as the options say, as the vision tower gets them."""
    frames, plan = load_video(video, options)
    columns = 5
    rows = -(-len(frames) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.45 * rows), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, frame, index in zip(axes.flat, frames, plan.indices, strict=False):
        axis.imshow(frame)
        axis.set_title(f"frame {index}", fontsize=8)
    figure.suptitle(f"{len(frames)} frames, {plan.sampled_fps:.3f} a second, in pairs")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def speak(omni: omni_jax.Omni, conversation: list, tokens: int, path: Path) -> dict[str, Any]:
    """Streams one reply into a WAV file, twice (the first time compiles), and prints when sound came."""
    options = {"max_new_tokens": tokens, "talker_max_new_tokens": CODES}
    list(omni.stream(conversation, return_audio=True, **options))
    print(f"\nspeech, streamed to {path}\n  ", end="")
    told = stream(omni, conversation, path, **options)
    print(f"\n  first sound after {told['first_audio_seconds']:.2f} s; {told['audio_seconds']:.2f} s of sound in "
          f"{told['pieces']} pieces in {told['total_seconds']:.2f} s, a real-time factor of "
          f"{told['real_time_factor']:.2f}")
    return told


def show(omni: omni_jax.Omni, name: str, conversation: list, use_audio: bool, tokens: int) -> dict[str, Any]:
    """Runs one conversation twice (the first time imports and compiles) and prints what went in and what came out."""
    omni.prompt(conversation, use_audio)  # the first sound of a process waits for librosa's import
    started = time.perf_counter()
    prompt = omni.prompt(conversation, use_audio)
    prepared = time.perf_counter() - started
    print(f"\n{name}\n" + "\n".join(describe(prompt)))
    options = {"use_audio_in_video": use_audio, "max_new_tokens": tokens, "return_audio": False}
    omni.generate(conversation, **options)
    reply = omni.generate(conversation, **options)
    first, total = reply.timings["first_token"], reply.timings["total"]
    rate = (len(reply.token_ids) - 1) / max(total - first, 1e-9)
    print(f"  media read in {prepared:.2f} s; first token after {first:.2f} s; then {rate:.0f} tokens/s")
    print(f"  text: {reply.text[:70]!r}")
    return {"prompt_tokens": len(prompt.token_ids), "prepare_seconds": prepared, "first_token_seconds": first,
            "tokens_per_second": rate, "text": reply.text}


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    parser = _cli.parser(__doc__)
    parser.add_argument("--out", default="out", help="directory to write to")
    parser.add_argument("--model", help="another checkpoint's directory, instead of omni-tiny")
    parser.add_argument("--tokens", type=int, default=48, help="tokens that such a checkpoint generates")
    arguments = parser.parse_args(argv)
    out = Path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OmniError(f"--out {out}: is a file or lies in one; give a directory") from None
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        results = run(out, arguments.model, arguments.tokens)
    return results if arguments.json else None


def load(model: str) -> omni_jax.Omni:
    started = time.perf_counter()
    omni = omni_jax.load(model)
    print(f"{model} loaded in {time.perf_counter() - started:.2f} s")
    return omni


def run(out: Path, given: str | None, tokens: int) -> dict[str, Any]:
    """The demonstration with omni-tiny or the checkpoint `given`; prints as it goes. Returns what it shows."""
    omni = load(given or TINY)
    if given:
        results = {name: show(omni, name, *each, tokens) for name, each in conversations().items()}
        if omni.speakers:
            results["speech"] = speak(omni, conversations()["a picture"][0], tokens, out / "reply.wav")
        (conversation, _), video = conversations()["a video with its sound"], "video.mp4"
    else:
        results, conversation, video = ask(omni, out), _question(MOVING, "What moved?"), MOVING
    plot_positions(omni, conversation, omni.prompt(conversation, True), out / "positions.png")
    plot_frames(str(SAMPLES / video), {} if given else WATCHED, out / "frames.png")
    print(f"\nPictures: {out / 'positions.png'} (TMRoPE), {out / 'frames.png'} (the sampled frames)")
    return results


if __name__ == "__main__":
    _cli.run(main)
