"""Videos with sound: one thing moves, grows, shrinks or turns at one moment, and beeps come before or after it.

What is asked needs the pictures, the sound, or what of both came first. Held out are one in five combinations of a
thing, a movement and a sound, and a style of drawing that is never trained on. Train with use_audio_in_video. To train
on, a clip is asked about in several turns, because it costs as much as four pictures.
"""

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tools.tiny_data.canvas import FRAME, background, compose
from tools.tiny_data.drawings import STYLES, UNSEEN, Drawings, jitter, place
from tools.tiny_data.examples import HELD_OUT, NUMBERS, TRAIN, Record, choose, conversation, pick, turn, write_all
from tools.tiny_data.things import THINGS

RATE = 16_000  # Hz
FRAME_RATE = 4
LENGTHS = (14, 16)  # frames of a clip
MOVING = 3  # frames that a movement lasts
APART = 0.2  # seconds at least between the movement and the sound
BEEP = 0.12  # seconds
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOVES = (*WAYS, "grow", "shrink", "turn")
BEEPS = (0, 1, 2, 3, 4)
SOUNDS = (*BEEPS, "sweep", "noise")
ROUND = {"baseball", "basketball", "coin", "compass", "cookie", "doughnut", "egg", "ferris wheel", "football", "gear",
         "globe", "lollipop", "orange", "snowflake", "stop sign", "sun", "target", "tomato", "wheel"}  # no turn shows
EVERY = tuple(THINGS.values())
SHARES = {"what": 0.25, "way": 0.15, "act": 0.15, "beeps": 0.2, "order": 0.2, "heard": 0.05}  # of the kinds
STILL = 0.25  # share of clips with a second thing, which stays as it is

PAST = {"grow": "grew", "shrink": "shrank", "turn": "turned"}  # all others moved
WHAT = ("What {past}?", "Which thing {past}?", "What was it that {past}?")
WAY = ("Which way did it move?", "In which direction did it move?", "Where did it go?")
ACT = ("What did it do?", "What happened to it?", "How did it change?")
COUNT = ("How many beeps were there?", "How many beeps did you hear?", "Count the beeps.")
ORDER = ("Did the {sound} come before or after {event}?", "Was the {sound} before or after {event}?",
         "When did you hear the {sound}, before or after {event}?")
HEARD = ("What did you hear?", "What was the sound?", "What could be heard?")


def write(out: Path, drawings: Drawings, train: int, held_out: int, seed: int = 0, workers: int = 2) -> Record:
    """OUT/train.jsonl and OUT/held_out.jsonl with OUT/videos; returns their counts by kind, bytes and seconds.
    The same seed writes the same files with any number of workers."""
    return write_all(Path(out), Watching(drawings), "videos", {TRAIN: train, HELD_OUT: held_out}, seed, workers)


@dataclasses.dataclass(frozen=True)
class Clip:
    """`start`: the frame after which the movement begins, of `frames`; `early`: whether the sound comes before it."""

    thing: Any
    move: str
    sound: int | str
    frames: int
    start: int
    early: bool

    @property
    def free(self) -> tuple[float, float]:
        """Seconds from and to which the sound may last."""
        begin, end = self.start / FRAME_RATE, (self.start + MOVING) / FRAME_RATE
        return (0.1, begin - APART) if self.early else (end + APART, self.frames / FRAME_RATE - 0.1)


@dataclasses.dataclass(frozen=True)
class Watching:
    """Makes one example: its video in `folder`, and its line of the manifest."""

    drawings: Drawings

    def __call__(self, rng: np.random.Generator, part: str, name: str, folder: Path) -> dict[str, Record]:
        kinds, shares = zip(*SHARES.items(), strict=True)
        kind = kinds[rng.choice(len(kinds), p=shares)]
        style = UNSEEN if part == HELD_OUT and rng.random() < 1 / 3 else pick(rng, STYLES)
        clip, waveform = plan(rng, part, kind)
        path = f"videos/{name}.mp4"
        encode(folder / path, film(rng, self.drawings, style, clip), waveform)
        shown = [{"type": "video", "video": path, "fps": FRAME_RATE, "resized_height": FRAME, "resized_width": FRAME}]
        line = conversation(name, kind, style, shown, *ask(rng, kind, clip))
        if part == TRAIN:
            for other in rng.permutation([other for other in asked_of(clip) if other != kind]):
                line["messages"] += turn([], *ask(rng, other, clip))
        return {"": line}


def plan(rng: np.random.Generator, part: str, kind: str) -> tuple[Clip, np.ndarray]:
    """A clip of which `kind` can be asked, and its sound track: float32 [samples] at RATE."""
    moves = tuple(WAYS) if kind == "way" else MOVES
    sounds = {"beeps": BEEPS, "order": SOUNDS[1:]}.get(kind, SOUNDS)
    while True:
        thing, move, sound = choose(rng, part, "watching", EVERY, moves, sounds)
        frames = pick(rng, LENGTHS)
        clip = Clip(thing, move, sound, frames, int(rng.integers(3, frames - MOVING - 2)), rng.random() < 0.5)
        made, (begin, end) = noise_of(rng, sound), clip.free
        slack = end - begin - len(made) / RATE
        if slack >= 0 and not (move == "turn" and thing.name in ROUND):
            break
    waveform = 0.003 * rng.standard_normal(frames * RATE // FRAME_RATE).astype(np.float32)
    at = int(RATE * (begin + rng.uniform(0, slack)))
    waveform[at : at + len(made)] += made
    return clip, waveform


def asked_of(clip: Clip) -> tuple[str, ...]:
    """The kinds of questions that the clip has answers to."""
    way = ("way",) if clip.move in WAYS else ()
    beeps = () if isinstance(clip.sound, str) else ("beeps",)
    return ("what", *way, "act", *beeps, *(("order",) if clip.sound else ()), "heard")


def noise_of(rng: np.random.Generator, sound: int | str) -> np.ndarray:
    """float32 [samples]: so many beeps of one pitch, a sweep from one pitch to another, or a rush of noise."""
    loud = rng.uniform(0.2, 0.6)
    if sound == "noise":
        rush = rng.standard_normal(int(rng.uniform(0.4, 0.8) * RATE))
        return (0.3 * loud * rush * _edges(len(rush))).astype(np.float32)
    if sound == "sweep":
        samples = int(rng.uniform(0.5, 0.8) * RATE)
        pitches = np.geomspace(*rng.permutation([rng.uniform(250, 450), rng.uniform(1200, 2200)]), samples)
        return (loud * np.sin(2 * np.pi * np.cumsum(pitches) / RATE) * _edges(samples)).astype(np.float32)
    pitch, samples = rng.uniform(400, 1600), int(BEEP * RATE)
    beep = loud * np.sin(2 * np.pi * pitch * np.arange(samples) / RATE) * _edges(samples)
    pause = np.zeros(int(rng.uniform(0.1, 0.17) * RATE))
    return np.concatenate([np.zeros(0), *([beep, pause] * int(sound))[:-1]]).astype(np.float32)


def film(rng: np.random.Generator, drawings: Drawings, style: str, clip: Clip) -> list[Image.Image]:
    """RGB frames of the clip on a plain page."""
    drawing = jitter(drawings.any_of(clip.thing, style, rng), rng)
    flip = rng.random() < 0.5
    first, last = states(rng, clip.move)
    still = []
    if rng.random() < STILL and clip.move not in ("grow", "shrink"):
        first, last, still = _beside(rng, drawings, style, clip, first, last)
    page = background(rng, [drawing, *(image for image, _ in still)], plain=True)
    shown = []
    for i in range(clip.frames):
        share = np.clip((i - clip.start + 1) / MOVING, 0, 1)
        x, y, size, angle = first + share * (last - first)
        shown.append(compose(page, [*still, (place(drawing, FRAME * size, angle, flip), (x, y))]))
    return shown


def states(rng: np.random.Generator, move: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, size, angle) before and after: in frames and degrees."""
    x, y = rng.uniform(0.4, 0.6, 2)
    size, angle = rng.uniform(0.32, 0.5), rng.uniform(-12, 12)
    first, last = np.array([x, y, size, angle]), np.array([x, y, size, angle])
    if move in WAYS:
        way, far = np.array(WAYS[move]), rng.uniform(0.35, 0.5)
        first[:2] -= way * far / 2
        last[:2] += way * far / 2
    elif move == "turn":
        last[3] += rng.choice([-1, 1]) * rng.uniform(80, 180)
    else:
        first[2], last[2] = rng.uniform(0.25, 0.35), rng.uniform(0.6, 0.85)
        first, last = (first, last) if move == "grow" else (last, first)
    return first, last


def _beside(rng: np.random.Generator, drawings: Drawings, style: str, clip: Clip, first: np.ndarray,
            last: np.ndarray) -> tuple[np.ndarray, np.ndarray, list]:
    """A second thing that stays where it is, out of the way of the first, which is made smaller and put aside."""
    other = pick(rng, [thing for thing in EVERY if thing != clip.thing])
    across = 1 if clip.move in ("left", "right") else 0  # the axis that the movement leaves alone
    side = rng.choice([0.22, 0.78])
    first, last = first.copy(), last.copy()
    for state in (first, last):
        state[across], state[2] = side, 0.34
    centre = np.array([0.5, 0.5]) + rng.uniform(-0.15, 0.15, 2)
    centre[across] = 1 - side
    image = place(jitter(drawings.any_of(other, style, rng), rng), 0.34 * FRAME, 0.0, rng.random() < 0.5)
    return first, last, [(image, tuple(centre))]


def ask(rng: np.random.Generator, kind: str, clip: Clip) -> tuple[str, str]:
    """(question, answer)."""
    past = PAST.get(clip.move, "moved")
    if kind == "what":
        return pick(rng, WHAT).format(past=past), clip.thing.phrase
    if kind == "way":
        return pick(rng, WAY), _where(clip.move)
    if kind == "act":
        return pick(rng, ACT), f"it {past}" if clip.move in PAST else f"it moved {_where(clip.move)}"
    if kind == "beeps":
        return pick(rng, COUNT), NUMBERS[int(clip.sound)]
    if kind == "order":
        sound = clip.sound if isinstance(clip.sound, str) else "beep" if clip.sound == 1 else "beeps"
        event = pick(rng, (f"it {past}", "the turn" if clip.move == "turn" else "the change"))
        if clip.move in WAYS:
            event = pick(rng, ("it moved", "the move"))
        question = pick(rng, ORDER).format(sound=sound, event=event)
        return question.replace("Was the beeps", "Were the beeps"), "before" if clip.early else "after"
    return pick(rng, HEARD), _heard(clip.sound)


def _where(way: str) -> str:
    return way if way in ("up", "down") else f"to the {way}"


def _heard(sound: int | str) -> str:
    if isinstance(sound, str):
        return f"a {sound}"
    return "nothing" if sound == 0 else "a beep" if sound == 1 else f"{NUMBERS[sound]} beeps"


def _edges(samples: int) -> np.ndarray:
    """[samples] in 0 to 1: fades of 10 ms at both ends, so that nothing clicks."""
    ramp = np.arange(samples) / (0.01 * RATE)
    return np.minimum(1, np.minimum(ramp, ramp[::-1]))


def encode(path: Path, frames: list[Image.Image], waveform: np.ndarray) -> None:
    """An MP4 of MPEG-4 video and AAC. Not H.264, which x264 does not write in the same bytes every time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(FRAME_RATE), options={"threads": "1"})
        stream.width = stream.height = FRAME
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
        track = container.add_stream("aac", rate=RATE, layout="mono")
        track.bit_rate = 48_000
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
        for start in range(0, len(waveform), 1024):
            frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
