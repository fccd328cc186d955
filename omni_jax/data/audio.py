"""Sound: any container, codec, rate and number of channels to 16 kHz mono, and on to log-mel frames."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import av
import librosa
import numpy as np

from omni_jax.data.sources import Source, check_whole, decode_stream, open_container, resolve
from omni_jax.errors import OmniError

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples from one mel frame to the next: 10 ms
N_FFT = 400  # samples that one mel frame sees: 25 ms
MIN_FRAMES = 3  # fewer mel frames give no token
PIECE = 4096  # frames transformed at a time: 13 MB of samples in float64
FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31, np.dtype(np.int64): 2.0**63}


def load_audio(source: Any, item: Mapping[str, Any] | None = None, where: str = "audio") -> np.ndarray:
    """float32 [samples], mono, 16 kHz, of a file (path, URL-like string, bytes; a video's sound track too) or an array.

    `item` may hold `audio_start` and `audio_end` (seconds) and, for arrays, `sampling_rate` (Hz, 16,000 if absent).
    A 2-D array is [channels, samples] or [samples, channels]: the smaller axis is the channels. Channels are averaged.
    Raises OmniError if there is no sound, if it cannot be decoded, or if it is too short for one token.
    """
    item = item or {}
    start, end = time_range(item, "audio_start", "audio_end", where)
    file = resolve(source, where)
    if file is None:
        name, (samples, rate) = where, _from_array(source, item, where)
    else:
        name, (samples, rate) = file.name, decode_sound(file)
    return to_waveform(samples, rate, start, end, name)


def to_waveform(samples: np.ndarray, rate: int, start: float, end: float | None, name: str) -> np.ndarray:
    """float32 [samples] at 16 kHz of the mono `samples` at `rate` Hz, between `start` and `end` seconds.

    Equals librosa.load(sr=16000, offset=start, duration=end - start). Raises OmniError if fewer than MIN_FRAMES remain.
    """
    if not np.isfinite(samples).all():
        raise OmniError(f"{name}: the sound has samples that are not finite numbers; clean it up first")
    first = int(start * rate)
    samples = samples[first:] if end is None else samples[first : first + int((end - start) * rate)]
    if rate != SAMPLE_RATE and samples.size:
        samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    if mel_frames(samples.size) < MIN_FRAMES:
        raise OmniError(f"{name}: {samples.size / SAMPLE_RATE:.3f} s of sound is too short for one token; "
                        f"give more than {(MIN_FRAMES - 1) * HOP / SAMPLE_RATE:.2f} s")
    return np.ascontiguousarray(samples, np.float32)


def mel_frames(samples: int) -> int:
    """Mel frames of so many samples at 16 kHz: one for each hop that is begun."""
    return -(-samples // HOP)


def audio_tokens(frames: int) -> int:
    """Tokens of a clip of so many mel frames: a convolution with stride 2, then pooling in pairs."""
    return ((frames - 1) // 2 + 1) // 2


def time_range(item: Mapping[str, Any], start_key: str, end_key: str, where: str) -> tuple[float, float | None]:
    """(start, end) in seconds from an item's fields, end None if it has none. Raises OmniError."""
    start, end = item.get(start_key, 0.0), item.get(end_key)
    for key, value in ((start_key, start), (end_key, end)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float, np.number))
                                  or not np.isfinite(value)):
            raise OmniError(f"{where}: {key} must be a number of seconds, not {value!r}")
    start = max(float(start), 0.0)
    if end is not None and end <= start:
        raise OmniError(f"{where}: {end_key} {end} must lie after {start_key} {start}")
    return start, None if end is None else float(end)


def decode_sound(file: Source) -> tuple[np.ndarray, int]:
    """(float32 [samples] with channels averaged, rate in Hz) of the file's first sound track. Raises OmniError."""
    with open_container(file, "sound") as container:
        if not container.streams.audio:
            raise OmniError(f"{file.name}: has no sound track; give a file with sound")
        stream = container.streams.audio[0]
        check_whole(container, stream, file.name)
        rate, pieces = None, []
        for frame in decode_stream(container, stream, file.name):
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise OmniError(f"{file.name}: the sampling rate changes midway; convert it to a plain WAV file")
            pieces.append(_mono(frame))
    if not sum(piece.size for piece in pieces):
        raise OmniError(f"{file.name}: the sound track holds no sound; the file is empty or corrupt")
    return np.concatenate(pieces), rate


def _mono(frame: av.AudioFrame) -> np.ndarray:
    samples = frame.to_ndarray()  # planar: [channels, samples]; packed: [1, samples * channels]
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    samples = _to_float(samples)
    return samples[0] if len(samples) == 1 else samples.mean(axis=0)


def _to_float(samples: np.ndarray) -> np.ndarray:
    """float32 with full scale at 1, from any sample format; float32 stays the same array."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in FULL_SCALE:
        return (samples / FULL_SCALE[samples.dtype]).astype(np.float32)
    return samples.astype(np.float32, copy=False)


def _from_array(source: Any, item: Mapping[str, Any], where: str) -> tuple[np.ndarray, int]:
    samples = np.asarray(source) if hasattr(source, "__array__") or isinstance(source, (list, tuple)) else None
    if samples is None or not (samples.dtype == np.uint8 or samples.dtype in FULL_SCALE or samples.dtype.kind == "f"):
        raise OmniError(f"{where}: sound must be a path, bytes or an array of numbers, not a {type(source).__name__}")
    rate = item.get("sampling_rate", SAMPLE_RATE)
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 1 <= rate < 1e7:
        raise OmniError(f"{where}: sampling_rate must be a number of Hz, 1 or more, not {rate!r}")
    if samples.size == 0 or samples.ndim not in (1, 2):
        raise OmniError(f"{where}: sound of shape {list(samples.shape)} is not [samples], [channels, samples] or "
                        "[samples, channels] with at least one sample")
    samples = _to_float(samples)
    return samples if samples.ndim == 1 else samples.mean(axis=int(np.argmin(samples.shape))), int(rate)


def log_mel(waveform: np.ndarray, num_mel_bins: int = 128) -> np.ndarray:
    """float32 [frames, num_mel_bins] of float32 [samples] at 16 kHz; frames = ceil(samples / 160).

    As Whisper's feature extractor: 25 ms Hann windows every 10 ms, Slaney mel bands, log10 with the floor 8 below the
    clip's maximum, (x + 4) / 4. The reference pads every clip with zeros to 300 s (and cuts it there): so the last
    frames see zeros, not a reflection, while the first ones see the start reflected. Nothing is cut here.
    Memory beyond the result is bounded, whatever the length.
    """
    frames = mel_frames(waveform.size)
    seen = -(-(waveform.size + N_FFT // 2) // HOP)  # frames that see a sample at all: the maximum runs over these
    result = np.empty((frames, num_mel_bins), np.float32)
    maximum = -np.inf
    for first in range(0, seen, PIECE):
        piece = _log_power(_samples_of(waveform, first, min(first + PIECE, seen)), num_mel_bins)
        maximum = max(maximum, piece.max())
        result[first : first + len(piece)] = piece[: max(frames - first, 0)]
    np.maximum(result, np.float32(maximum - 8.0), out=result)
    result += 4
    result /= 4
    return result


def _samples_of(waveform: np.ndarray, first: int, last: int) -> np.ndarray:
    """float64 [last - first, N_FFT]: what the frames from first to before last see, centred on frame * HOP."""
    half = N_FFT // 2
    index = np.abs(np.arange(first * HOP - half, (last - 1) * HOP + half))  # reflected at the start
    inside = index < waveform.size  # zeros after the end
    samples = np.zeros(index.size)
    samples[inside] = waveform[index[inside]]
    return np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]


def _log_power(samples: np.ndarray, num_mel_bins: int) -> np.ndarray:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)  # periodic Hann
    spectrum = np.fft.rfft(samples * window, axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log10(np.maximum(power @ _mel_filters(num_mel_bins), 1e-10))


@lru_cache(maxsize=4)
def _mel_filters(num_mel_bins: int) -> np.ndarray:
    """float64 [N_FFT / 2 + 1, num_mel_bins]: Slaney's mel bands from 0 to 8 kHz, each of unit area."""
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=num_mel_bins, dtype=np.float64).T
