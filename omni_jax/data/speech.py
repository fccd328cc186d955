"""Speech to learn from and to make codes of: 24 kHz sound, and the codes of it."""

from typing import Any

import librosa
import numpy as np

from omni_jax.data.audio import decode_sound
from omni_jax.data.sources import resolve
from omni_jax.errors import OmniError, require

SPEECH_RATE = 24_000  # Hz
LOWEST_RATE = 16_000  # Hz: below, what tells consonants apart is missing
SHORTEST = 0.3  # seconds
SILENT = 1e-3  # peak, -60 dB below full scale
FULL_SCALE, MOST_CLIPPED = 0.999, 1e-3  # from where a sample counts as clipped, and the share that may be


def load_speech(source: Any, where: str = "sound") -> np.ndarray:
    """float32 [samples], mono, 24 kHz, of a file (path or bytes).

    Raises OmniError if it cannot be decoded, and for sound that teaches nothing good: silent, clipped, too short, or of
    a rate below 16 kHz.
    """
    file = resolve(source, where)
    require(file is not None, where, "must be a file")
    wave, rate = decode_sound(file)
    require(rate >= LOWEST_RATE, file.name, f"has {rate:,} Hz; give speech of {LOWEST_RATE:,} Hz or more")
    if rate != SPEECH_RATE:
        wave = librosa.resample(wave, orig_sr=rate, target_sr=SPEECH_RATE, res_type="soxr_hq")
    return check_speech(wave, file.name)


def check_speech(wave: Any, where: str = "sound") -> np.ndarray:
    """float32 [samples] of speech at 24 kHz. Raises OmniError as `load_speech` does."""
    wave = np.asarray(wave, np.float32)
    require(wave.ndim == 1 and bool(np.isfinite(wave).all()), where, "must be finite samples [n] of one channel")
    require(len(wave) >= SHORTEST * SPEECH_RATE, where, f"is {len(wave) / SPEECH_RATE:.2f} s long; give {SHORTEST} s "
            "or more")
    peak, clipped = np.abs(wave).max(), (np.abs(wave) >= FULL_SCALE).mean()
    require(peak >= SILENT, where, "is silent; give a recording of speech")
    require(clipped <= MOST_CLIPPED, where, f"is clipped ({clipped:.1%} of its samples are at full scale); record it "
            "at a lower level")
    return np.ascontiguousarray(wave)


def check_codes(codes: Any, rows: int, where: str = "codes") -> np.ndarray:
    """int32 [n] of what somebody gives as codes, for a table of so many rows. Raises OmniError."""
    codes = np.asarray(codes)
    if codes.size == 0:
        raise OmniError(f"{where}: there are none; give at least one")
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise OmniError(f"{where}: must be whole numbers [n], not {codes.dtype} {list(codes.shape)}")
    wrong = np.flatnonzero((codes < 0) | (codes >= rows))
    if wrong.size:
        raise OmniError(f"{where}: {codes[wrong[0]]} at place {wrong[0]} is outside 0..{rows - 1}"
                        f"{f' (and {wrong.size - 1} more)' if wrong.size > 1 else ''}; leave out end marks")
    return codes.astype(np.int32)
