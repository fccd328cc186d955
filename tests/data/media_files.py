"""Small media made on the spot. Frame i of a video is a flat colour that tells its number."""

from fractions import Fraction

import av
import numpy as np

RATE = 16000


def tone(seconds, rate=RATE, seed=0):
    """float32 [samples]: two sines and a little noise, not louder than 0.9."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=t.size)
    return (0.5 * np.sin(2 * np.pi * 330 * t) + 0.3 * np.sin(2 * np.pi * 2500 * t) + 0.02 * noise).astype(np.float32)


def colour(index):
    """A gray level and a red level that survive compression: index = 16 * a + b."""
    return np.array([16 * (index // 16) + 8, 16 * (index % 16) + 8, 128], np.uint8)


def index_of(frame):
    a, b = frame[..., 0].mean(), frame[..., 1].mean()
    return round((a - 8) / 16) * 16 + round((b - 8) / 16)


def write_video(path, frames=30, fps=Fraction(25), size=(64, 96), codec="mpeg4", times=None, sound=None,
                options=None):
    """A video of `frames` numbered frames; `times` (in ms) makes its rate vary; `sound`: float32 at 16 kHz."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if codec == "ffv1" else "yuv420p"
        stream.bit_rate = 4_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound is not None else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.broadcast_to(colour(i), (*size, 3)).copy(), format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = 1 / Fraction(fps) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            write_sound_track(container, audio, sound)
    return str(path)


def write_sound_track(container, stream, sound):
    for start in range(0, len(sound), 1024):
        frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def one_sentence(error, *names):
    """Asserts that an error is one sentence that names what it is about."""
    text = str(error.value)
    assert "\n" not in text and not text.endswith(".") and 20 < len(text) < 400, text
    for name in names:
        assert str(name) in text, text
