"""Voices that say texts, and what rooms and lines do to them.

Twenty voices of Kokoro-82M, which runs in onnxruntime from phonemes of espeak, and three of flite. All give 24 kHz.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import librosa
import numpy as np
import scipy.signal
import soundfile

from omni_jax.errors import require
from omni_jax.weights.files import progress_bar, whole_file
from tools._sound import RATE
from tools.smoke_speech import flite
from tools.tiny_data.examples import spread
from tools.tiny_data.packages import Packages

KOKORO = ("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_sarah",
          "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_santa",
          "bf_alice", "bf_isabella", "bf_lily", "bm_daniel", "bm_george", "bm_lewis")
FLITE = ("slt", "rms", "awb")
HELD_OUT = ("af_kore", "am_liam", "bf_lily")  # never trained on
LEARNT = tuple(voice for voice in KOKORO if voice not in HELD_OUT)
# Kokoro was trained on phonemes of its own, which differ from espeak's IPA in these.
PHONEMES = {"əl": "ᵊl", "ɚ": "əɹ", "r": "ɹ", "x": "k", "ɬ": "l", "ʲ": "j", "tʃ": "ʧ", "dʒ": "ʤ", "oʊ": "O",
            "aʊ": "W", "əʊ": "Q", "aɪ": "I", "eɪ": "A", "ɔɪ": "Y"}  # noqa: RUF001
LONGEST = 509  # phonemes; a voice has a vector for each length up to it
DURATIONS = "/encoder/Clip_output_0"  # the tensor in Kokoro's graph: frames of FRAME seconds of each phoneme
FRAME = 1 / 40
LAG = 0.065  # seconds by which a phoneme sounds before its frames begin: the mean of 1,600 texts' first ones
Timed = tuple[str, float, float]  # a word with the seconds at which it begins and ends
Takes = Callable[[np.ndarray, Any, np.random.Generator], Iterator[tuple[str, np.ndarray, int]]]  # see Studio


class Job(Protocol):
    """A text to be said by a voice of KOKORO or FLITE. seed: of all that is drawn for it."""

    text: str
    seed: int

    @property
    def voice(self) -> str: ...


class Voices:
    """Says texts. It can be sent to other processes before it has said any: each makes a synthesiser of its own.

    What Kokoro says takes hours, so it is kept in the directory `kept`: an interrupted run goes on where it was.
    """

    def __init__(self, packages: Packages, kept: Path):
        for name in ("onnx", "onnxruntime", "piper"):
            require(importlib.util.find_spec(name) is not None, name,
                    "is missing; pip install -r requirements-tiny.txt")
        kept.mkdir(parents=True, exist_ok=True)
        self._packages, self._kept, self._styles = packages, kept, {}

    @functools.cached_property
    def _kokoro(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a process a core is faster than threads
        return onnxruntime.InferenceSession(self._packages.kokoro, options, providers=["CPUExecutionProvider"])

    @functools.cached_property
    def _timer(self) -> Any:
        """What of Kokoro tells the durations, which is fast."""
        import onnx
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "timer.onnx"
            onnx.utils.extract_model(str(self._packages.kokoro), str(path), ["tokens", "style", "speed"], [DURATIONS])
            return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @functools.cached_property
    def _espeak(self) -> Any:
        from piper.phonemize_espeak import EspeakPhonemizer

        return EspeakPhonemizer()

    @functools.cached_property
    def _vocabulary(self) -> dict[str, int]:
        return json.loads(self._packages.kokoro_vocabulary.read_text())["vocab"]

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray:
        """float32 [samples] at RATE. speed: of Kokoro's voices alone."""
        if voice in FLITE:
            with tempfile.TemporaryDirectory() as folder:
                return flite(text, voice, Path(folder) / "said.wav")
        key = hashlib.blake2s(f"{voice}|{speed}|{text}".encode(), digest_size=10).hexdigest()
        path = self._kept / f"{key}.flac"
        if not path.exists():
            said = self._synthesised(text, voice, speed)
            with whole_file(path) as partial:
                soundfile.write(partial, said / max(1.0, np.abs(said).max()), RATE, format="FLAC")
        return soundfile.read(path, dtype="float32")[0]

    def timed(self, text: str, voice: str, speed: float = 1.0) -> tuple[np.ndarray, list[Timed]]:
        """What one of Kokoro's voices says, as `say`, and its words' times; no words if these cannot be told, because
        espeak joins some in other ways than in pairs."""
        said = self.say(text, voice, speed)
        frames = self._timer.run(None, self._inputs(text, voice, speed))[0].ravel()
        ends = (np.cumsum(frames) * FRAME).tolist()
        words, spelt = text.split(), self._phonemes(text, voice)
        sizes = self._sizes(words, spelt.split(" "), voice)
        # The silence at the start is the first phoneme's, and a space, which is none, the following word's.
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)[:-1]
        begins = [ends[at - (at > 0 and spelt[at - 1] == " ")] - LAG for at in starts]
        times = list(zip(words, begins, [*begins[1:], ends[-1]], strict=True)) if sizes else []
        return said, times

    def _sizes(self, words: list[str], groups: list[str], voice: str) -> list[int]:
        """How many phonemes each word has, its space among them; [] if that is not clear. espeak writes some pairs, as
        "in the", without a space."""
        sizes, left = [], list(groups)
        for i, word in enumerate(words):
            if not left:
                return []
            group, pair = left.pop(0), " ".join(words[i:i + 2])
            alone = self._phonemes(word, voice)
            if len(left) + 1 < len(words) - i and " " not in self._phonemes(pair, voice) and group != alone:
                sizes.append(min(len(alone), len(group) - 1))
                left.insert(0, group[sizes[-1]:])
            else:
                sizes.append(len(group) + 1)
        return [] if left else sizes

    def _synthesised(self, text: str, voice: str, speed: float) -> np.ndarray:
        """By Kokoro."""
        return np.asarray(self._kokoro.run(None, self._inputs(text, voice, speed))[0], np.float32).ravel()

    def _inputs(self, text: str, voice: str, speed: float) -> dict[str, np.ndarray]:
        ids = [self._vocabulary[phoneme] for phoneme in self._phonemes(text, voice)]
        return {"tokens": np.array([[0, *ids, 0]], np.int64), "style": self._style(voice)[len(ids)],
                "speed": np.array([speed], np.float32)}

    def _style(self, voice: str) -> np.ndarray:
        """float32 [LONGEST + 1, 1, 256]: a vector for each number of phonemes."""
        if voice not in self._styles:
            path = self._packages.kokoro_voices / f"{voice}.bin"
            self._styles[voice] = np.fromfile(path, np.float32).reshape(-1, 1, 256)
        return self._styles[voice]

    def _phonemes(self, text: str, voice: str) -> str:
        """Of those that Kokoro knows, a space between words."""
        sentences = self._espeak.phonemize("en-gb-x-rp" if voice.startswith("b") else "en-us", text)
        phonemes = " ".join("".join(sentence) for sentence in sentences)
        for theirs, ours in PHONEMES.items():
            phonemes = phonemes.replace(theirs, ours)
        return "".join(each for each in phonemes if each in self._vocabulary)[:LONGEST]


@dataclasses.dataclass(frozen=True)
class Studio:
    """Has each job said, at a speed drawn between `speeds`, and writes its `takes` to `folder` as FLAC: (said at RATE,
    job, randomness) -> the name, the samples and the rate of each."""

    voices: Voices
    folder: Path
    speeds: tuple[float, float]
    takes: Takes

    def record(self, jobs: Sequence[Job], title: str, workers: int) -> None:
        """All of them, behind a progress bar."""
        with progress_bar(len(jobs), f"{title}, recordings", True, "") as bar:
            for _ in spread(self, jobs, workers):
                bar.update()

    def __call__(self, job: Job) -> None:
        rng = np.random.default_rng(job.seed)
        said = self.voices.say(job.text, job.voice, _speed(rng, self.speeds))
        for name, wave, rate in self.takes(said, job, rng):
            soundfile.write(self.folder / f"{name}.flac", wave, rate)


def speed_of(job: Job, speeds: tuple[float, float]) -> float:
    """At which a studio with these `speeds` has it said."""
    return _speed(np.random.default_rng(job.seed), speeds)


def _speed(rng: np.random.Generator, speeds: tuple[float, float]) -> float:
    return float(rng.uniform(*speeds))


def heard(wave: np.ndarray, rng: np.random.Generator, rate: int = 16_000) -> np.ndarray:
    """The sound at 16 kHz as it may reach a microphone: higher or lower, faster or slower, in a room, over a telephone,
    softer or louder, in noise of 5 to 30 dB. float32 [samples]."""
    pitch = float(rng.uniform(0.87, 1.15))  # resampled: another speaker's size, as far as that goes
    wave = librosa.resample(wave, orig_sr=RATE * pitch, target_sr=rate, res_type="soxr_hq")
    return received(padded(sent(wave, rng, rate), rng, rate), rng)


def sent(wave: np.ndarray, rng: np.random.Generator, rate: int) -> np.ndarray:
    """In a room at times, and over a telephone."""
    if rng.random() < 0.3:
        wave = _room(wave, rng, rate)
    if rng.random() < 0.2:
        wave = scipy.signal.sosfilt(scipy.signal.butter(4, (300, 3400), "bandpass", fs=rate, output="sos"), wave)
    return wave


def received(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Softer or louder, mostly in noise. float32."""
    if rng.random() < 0.7:
        wave = noisy(wave, float(rng.uniform(5, 30)), rng)
    return levelled(wave, float(10 ** rng.uniform(-1.2, -0.05)))


def padded(wave: np.ndarray, rng: np.random.Generator, rate: int,
           seconds: tuple[float, float] = (0.05, 0.4)) -> np.ndarray:
    """With some silence at both ends, of between so many seconds each."""
    before, after = (int(rate * rng.uniform(*seconds)) for _ in range(2))
    return np.pad(wave, (before, after))


def noisy(wave: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """In noise so far below the sound's power; its spectrum falls by 0 to 6 dB an octave."""
    white = np.fft.rfft(rng.normal(size=len(wave)))
    slope = np.maximum(np.arange(len(white)), 20.0) ** -float(rng.uniform(0, 1))
    noise = np.fft.irfft(white * slope, len(wave))
    loud = wave[np.abs(wave) > 0.05 * np.abs(wave).max()]
    gain = np.sqrt(np.mean(np.square(loud)) / np.mean(np.square(noise)) / 10 ** (decibels / 10))
    return wave + gain * noise


def levelled(wave: np.ndarray, peak: float) -> np.ndarray:
    """float32, with that peak."""
    return (wave * (peak / np.abs(wave).max())).astype(np.float32)


def _room(wave: np.ndarray, rng: np.random.Generator, rate: int) -> np.ndarray:
    """In a room of 0.1 to 0.5 s of reverberation: exponentially decaying noise after the direct sound."""
    seconds = float(rng.uniform(0.1, 0.5))
    times = np.arange(int(seconds * rate)) / rate
    tail = rng.normal(size=len(times)) * np.exp(-6.9 * times / seconds) * float(rng.uniform(0.02, 0.08))
    tail[0] = 1.0
    return scipy.signal.fftconvolve(wave, tail)[: len(wave) + len(tail) // 4]
