"""Stretches of speech to learn from: what the codec encoder, the DiT and BigVGAN are trained on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from omni_jax.config import Token2WavConfig
from omni_jax.data.chat_template import spoken
from omni_jax.data.speech import check_codes, load_speech
from omni_jax.errors import require
from omni_jax.training.batch import ClipBatch
from omni_jax.training.config import TrainConfig
from omni_jax.training.manifests import Line
from omni_jax.training.packing import Read
from omni_jax.weights.speakers import Speaker


class Clip(NamedTuple):
    """One row of a ClipBatch."""

    wave: np.ndarray
    frames: int
    codes: np.ndarray
    vector: np.ndarray
    named: bool
    reference: np.ndarray
    seed: int


def elsewhere(samples: int, length: int, first: int, taken: int, rng: np.random.Generator) -> int:
    """Where in `samples` a stretch of `length` begins that shares nothing with the one of `taken` from `first` on; if
    there is no room, at the end where it shares least: a voice is not told by the very sound that is to be said."""
    last = max(0, samples - length)
    before, after = max(0, first - length + 1), max(0, last - (first + taken) + 1)  # beginnings that there are
    if before + after == 0:
        return 0 if min(length, first + taken) - first < min(last + length, first + taken) - max(last, first) else last
    drawn = int(rng.integers(before + after))
    return drawn if drawn < before else first + taken + drawn - before


@dataclasses.dataclass(frozen=True)
class Clips:
    """A stretch of one spoken turn of a conversation a row, drawn anew in each pass. coded: turns must have codes."""

    run: TrainConfig
    config: Token2WavConfig
    speakers: Mapping[str, Speaker]
    coded: bool = False
    per_row = 1

    def budget(self) -> np.ndarray:
        return np.ones(1, int)

    def read(self, line: Line, rng: np.random.Generator) -> Read:
        sounds = [sound for sound in spoken(line.conversation()) if sound]
        require(bool(sounds), "conversation", 'has no speech; give an assistant\'s turn {"type": "audio"}')
        sound = sounds[rng.integers(len(sounds))]
        require(not self.coded or sound.get("codes") is not None, f"sound {sound['audio']}",
                "has no codes; make them with tools.make_codes")
        wave = load_speech(sound["audio"])
        clip = self._clip(wave, self._codes(sound, len(wave)), sound.get("speaker"), rng)
        return Read(clip, np.ones(1, int), clip.frames, clip.frames)

    def to_batch(self, rows: Sequence[Sequence[Clip]], length: int) -> ClipBatch:
        own = [row[0] if row else self._nothing() for row in rows]
        fields = (np.stack([np.asarray(clip[i]) for clip in own]) for i in range(len(Clip._fields)))
        kinds = (np.float32, np.int32, np.int32, np.float32, bool, np.float32, np.uint32)
        return ClipBatch(*(field.astype(kind) for field, kind in zip(fields, kinds, strict=True)))

    @property
    def _rate(self) -> int:
        return self.config.samples_per_code

    @property
    def _most(self) -> int:
        """Codes of a clip."""
        return self.run.speech.clip * self.config.codes_per_block

    def _codes(self, sound: Mapping[str, Any], samples: int) -> np.ndarray:
        """int32 [samples / samples of a code], -1 where the recording has none."""
        codes = np.full(samples // self._rate, -1, np.int32)
        if sound.get("codes") is not None:
            given = check_codes(sound["codes"], self.config.dit_config.codec_rows, str(sound["audio"]))
            require(abs(len(given) - len(codes)) <= 2, str(sound["audio"]),
                    f"has {len(given)} codes and sound for {len(codes)}; make them anew with tools.make_codes")
            given = given[:len(codes)]
            codes[:len(given)] = given
        return codes

    def _clip(self, wave: np.ndarray, codes: np.ndarray, speaker: str | None, rng: np.random.Generator) -> Clip:
        speech, most = self.run.speech, self._most
        first = int(rng.integers(max(0, len(codes) - most) + 1))
        own = np.full(most, -1, np.int32)
        own[:len(codes[first:first + most])] = codes[first:first + most]
        named = speech.named and speaker in self.speakers
        vector = self.speakers[speaker].cond[0] if named else np.zeros(self.config.dit_config.enc_emb_dim, np.float32)
        behind = elsewhere(len(wave), self._samples(speech.reference), first * self._rate,
                           self._samples(speech.clip), rng)
        return Clip(self._stretch(wave, first * self._rate, self._samples(speech.clip)),
                    min(most, len(codes) - first) * self.config.dit_config.repeats,
                    own.reshape(speech.clip, -1), vector, named,
                    self._stretch(np.resize(wave, max(len(wave), self._samples(speech.reference))), behind,
                                  self._samples(speech.reference)), int(rng.integers(1 << 32)))

    def _samples(self, blocks: int) -> int:
        return blocks * self.config.codes_per_block * self._rate

    def _stretch(self, wave: np.ndarray, first: int, samples: int) -> np.ndarray:
        """`samples` from `first` on and what lies around them, the wave's reflection at its ends, then zeros."""
        pad = self.run.speech.mel.pad
        around = np.pad(wave, pad, mode="reflect")[first:first + samples + 2 * pad]
        return np.pad(around, (0, samples + 2 * pad - len(around)))

    def _nothing(self) -> Clip:
        speech, pad = self.run.speech, 2 * self.run.speech.mel.pad
        silence = lambda blocks: np.zeros(self._samples(blocks) + pad, np.float32)
        return Clip(silence(speech.clip), 0, np.full((speech.clip, self.config.codes_per_block), -1, np.int32),
                    np.zeros(self.config.dit_config.enc_emb_dim, np.float32), False, silence(speech.reference), 0)
