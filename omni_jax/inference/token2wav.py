"""Codes to sound, in chunks of blocks while the codes are still coming, or a whole clip at once.

A chunk is solved once, from noise that is fixed by the seed and the block, together with blocks of look-ahead that are
solved again when their turn comes. What lies behind needs no computing again: the keys and values of a chunk's last
block are kept from each evaluation of the network, as they were when that block was current. So cost and memory of a
chunk do not depend on how much came before. With look-ahead to the end this is the reference's own whole-clip solve.

    synthesizer = prepare(config, graphdef, params, mesh)
    session = begin(synthesizer, [encode_speaker(synthesizer, speaker)], np.array([seed], np.uint32))
    for sound in push(session, [codes]):        # as codes come; usually nothing yet
        play(sound.rows()[0])
    for sound in finish(session): …
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from omni_jax.config import Token2WavConfig
from omni_jax.data.buckets import bucket
from omni_jax.errors import OmniError
from omni_jax.inference.schedule import CONTEXT, SCHEDULE, Schedule
from omni_jax.models import dit
from omni_jax.models.dit import Modulations
from omni_jax.weights.speakers import Speaker

SAMPLE_RATE = 24_000
SOLVES = ("block", "whole")


@dataclasses.dataclass(frozen=True)
class Synthesizer:
    """Token2Wav on a mesh. `table`: the DiT's modulations at the times of its solver, the same for every clip."""

    config: Token2WavConfig
    graphdef: nnx.GraphDef
    params: dict
    mesh: Mesh
    table: Modulations


class State(NamedTuple):
    """What a chunk leaves to the next. B rows."""

    kept: jax.Array  # keys and values of the last block: see DiT.empty_kept
    tail: jax.Array  # float32 [B, 2 * CONTEXT, M]: the last mel frames


@dataclasses.dataclass(frozen=True)
class Sound:
    """A chunk of sound of each row. The device may still be at work on it."""

    wave: jax.Array                    # float32 [rows computed, samples]
    spans: list[tuple[int, int, int]]  # of each row: its place in `wave`, first sample, last sample + 1
    samples_per_code: int

    @property
    def codes(self) -> list[int]:
        """How many codes each row's sound covers."""
        return [(end - begin) // self.samples_per_code for _, begin, end in self.spans]

    def rows(self) -> list[np.ndarray]:
        """float32 [samples] in [-1, 1] of each row, empty where a row has none here. Waits for the device."""
        wave = np.asarray(self.wave)
        return [wave[row, begin:end] for row, begin, end in self.spans]


@dataclasses.dataclass
class Session:
    """Replies becoming sound. `rows`: which of them are still computed, by their numbers in the batch."""

    synthesizer: Synthesizer
    schedule: Schedule
    state: State
    voices: jax.Array            # [rows, 2, D]
    seeds: np.ndarray            # uint32 [rows]
    noise: list[np.ndarray] | None
    rows: list[int]
    counts: np.ndarray           # int [B]: codes so far
    ended: np.ndarray            # bool [B]
    waiting: list[np.ndarray]    # of each row of the batch: its codes from the chunk's first block on
    chunk: int = 0

    @property
    def first(self) -> int:
        """The block that the next chunk begins with."""
        return self.schedule.first(self.chunk)


def prepare(config: Token2WavConfig, graphdef: nnx.GraphDef, params: dict, mesh: Mesh,
            steps: int = dit.STEPS) -> Synthesizer:
    """Computes what is constant for a checkpoint and a number of the solver's steps. The parameters must be float32:
    the solver needs it."""
    with jax.set_mesh(mesh):
        return Synthesizer(config, graphdef, params, mesh, _modulations(graphdef, params, steps))


def encode_speaker(synthesizer: Synthesizer, speaker: Speaker) -> jax.Array:
    """A voice, float32 [2, D], for `begin`; compute it once per speaker. Raises OmniError."""
    config = synthesizer.config.dit_config
    reaches = zip(config.enc_kernel_sizes, config.enc_dilations, strict=True)
    fewest = max((taps - 1) // 2 * dilation for taps, dilation in reaches)
    if speaker.cond.shape != (1, config.enc_emb_dim) or speaker.ref_mel.shape[2:] != (config.mel_dim,):
        raise OmniError(f"speaker: cond {list(speaker.cond.shape)} and ref_mel {list(speaker.ref_mel.shape)} must be "
                        f"[1, {config.enc_emb_dim}] and [1, frames, {config.mel_dim}]; it is of another model")
    if speaker.ref_mel.shape[1] <= fewest:
        raise OmniError(f"speaker: ref_mel has {speaker.ref_mel.shape[1]} frames and needs more than {fewest}")
    with jax.set_mesh(synthesizer.mesh):
        return _voice(synthesizer.graphdef, synthesizer.params, speaker.cond, speaker.ref_mel)


def check_noise(config: Token2WavConfig, noise: Any, codes: np.ndarray) -> np.ndarray:
    """float32 [frames, M] of what a caller gives as noise for these codes. Raises OmniError."""
    noise = np.asarray(noise, np.float32)
    wanted = (len(codes) * config.dit_config.repeats, config.dit_config.mel_dim)
    if noise.shape != wanted:
        raise OmniError(f"noise: must be {list(wanted)} for {len(codes)} codes, not {list(noise.shape)}")
    return noise


def begin(synthesizer: Synthesizer, voices: Sequence[jax.Array], seeds: np.ndarray, schedule: Schedule = SCHEDULE,
          noise: Sequence[np.ndarray] | None = None) -> Session:
    """A session of B replies with these voices (of `encode_speaker`), before their first code.

    `seeds` uint32 [B]: a row's noise depends on its seed and the block alone, unless `noise` gives it, float32
    [frames, M] of each row.
    """
    B = len(voices)
    with jax.set_mesh(synthesizer.mesh):
        state = _empty(synthesizer.graphdef, synthesizer.params, B, synthesizer.table.steps)
    return Session(synthesizer, schedule, state, jnp.stack(list(voices)), np.asarray(seeds, np.uint32),
                   None if noise is None else list(noise), list(range(B)), np.zeros(B, int), np.zeros(B, bool),
                   [np.zeros(0, np.int32)] * B)


def push(session: Session, codes: Sequence[np.ndarray], ended: Sequence[bool] | None = None) -> list[Sound]:
    """Takes new codes of each row (as many as there are, or none; checked by the caller) and computes the chunks that
    they complete: those for which every row has ended or has enough. `ended`: rows whose codes are now all there.

    Does not wait for the device.
    """
    for row, new in enumerate(codes):
        session.waiting[row] = np.concatenate([session.waiting[row], np.asarray(new, np.int32)])
        session.counts[row] += len(new)
    session.ended |= False if ended is None else np.asarray(ended, bool)
    return list(_sounds(session))


def finish(session: Session) -> list[Sound]:
    """The rest of the sound: all rows have ended."""
    B = len(session.counts)
    return push(session, [()] * B, [True] * B)


def synthesize(synthesizer: Synthesizer, voices: Sequence[jax.Array], codes: Sequence[np.ndarray], seeds: np.ndarray,
               solve: str = "block", noise: Sequence[np.ndarray] | None = None,
               schedule: Schedule = SCHEDULE) -> list[np.ndarray]:
    """The waveforms of B rows of codes, float32 [codes * samples of a code] each.

    Args:
      solve: "block", as a stream would sound, or "whole", the reference's own solve of the whole clip at once.
    """
    B = len(codes)
    if solve == "whole":
        mel = whole_mel(synthesizer, voices, codes, seeds, noise)
        return vocode(synthesizer, mel, _frames(synthesizer.config, codes))
    return _joined(push(begin(synthesizer, voices, seeds, schedule, noise), codes, [True] * B), B)


def whole_mel(synthesizer: Synthesizer, voices: Sequence[jax.Array], codes: Sequence[np.ndarray], seeds: np.ndarray,
              noise: Sequence[np.ndarray] | None = None) -> jax.Array:
    """The mel [B, frames, M] of whole clips solved at once, padded to a common length."""
    config, frames = synthesizer.config, _frames(synthesizer.config, codes)
    codes = [np.asarray(row, np.int32) for row in codes]
    blocks = bucket(-(-int(frames.max()) // config.dit_config.block_size))
    given = None if noise is None else _rows_of_blocks(noise, 0, blocks, config.dit_config.block_size)
    with jax.set_mesh(synthesizer.mesh):
        mel, _ = _solve(synthesizer.graphdef, synthesizer.params, synthesizer.table, jnp.stack(list(voices)),
                        _rows_of_blocks(codes, 0, blocks, config.codes_per_block), given, np.asarray(seeds, np.uint32),
                        np.int32(0), frames, np.int32(blocks), None)
    return mel


def vocode(synthesizer: Synthesizer, mel: jax.Array, frames: np.ndarray, blocks: int = SCHEDULE.sizes[-1]) -> list:
    """The waveforms of B rows of mel [B, T, M], of which each has `frames` (int [B]): in windows of at most so many
    blocks."""
    config, T, sounds = synthesizer.config, synthesizer.config.dit_config.block_size, []
    blocks = min(blocks, bucket(-(-int(frames.max()) // T)))
    width = blocks * T
    tail = jnp.zeros((len(frames), 2 * CONTEXT, mel.shape[2]), jnp.float32)
    for behind in range(0, int(frames.max()), width):
        left = np.maximum(frames - behind, 0)
        wave, tail = _sound(synthesizer, tail, mel[:, behind:behind + width], blocks, np.minimum(left, width), behind)
        spans = _spans(config, behind, np.minimum(left, width), left <= width)
        sounds.append(Sound(wave, [(row, *span) for row, span in enumerate(spans)], config.samples_per_code))
    return _joined(sounds, len(frames))


def _joined(sounds: Sequence[Sound], rows: int) -> list[np.ndarray]:
    parts = [sound.rows() for sound in sounds]
    return [np.concatenate([part[row] for part in parts] or [np.zeros(0, np.float32)]) for row in range(rows)]


def block_mel(synthesizer: Synthesizer, voice: jax.Array, codes: np.ndarray, seed: int,
              schedule: Schedule = SCHEDULE) -> np.ndarray:
    """The mel [frames, M] of one clip, solved in chunks."""
    session, parts = begin(synthesizer, [voice], np.array([seed], np.uint32), schedule), []
    session.waiting, session.ended = [np.asarray(codes, np.int32)], np.ones(1, bool)
    while len(session.waiting[0]):
        chunk = _next_mel(session)
        parts.append(np.asarray(chunk.mel[0, :chunk.frames[0]]))
    return np.concatenate(parts)


# Chunks

def _frames(config: Token2WavConfig, codes: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(row) for row in codes], np.int32) * config.dit_config.repeats


def _rows_of_blocks(rows: Sequence[np.ndarray], first: int, blocks: int, width: int) -> np.ndarray:
    """[B, blocks, width, …] of rows [n, …] from `first` on, zeros after their ends."""
    out = np.zeros((len(rows), blocks * width, *np.shape(rows[0])[1:]), np.asarray(rows[0]).dtype)
    for target, row in zip(out, rows, strict=True):
        part = row[first:first + blocks * width]
        target[:len(part)] = part
    return out.reshape(len(rows), blocks, width, *out.shape[2:])


def _sounds(session: Session) -> Iterator[Sound]:
    """Computes chunks for as long as their codes are there."""
    while True:
        _drop_ended(session)
        needed = session.schedule.codes_needed(session.chunk, session.synthesizer.config.codes_per_block)
        if not session.rows or not (session.ended | (session.counts >= needed))[session.rows].all():
            return
        yield _next_sound(session)


def _drop_ended(session: Session) -> None:
    """Rows that have nothing left leave when they are half of those computed, or all."""
    config = session.synthesizer.config
    behind = session.first * config.codes_per_block
    alive = [place for place, row in enumerate(session.rows) if not session.ended[row] or session.counts[row] > behind]
    if 2 * len(alive) > len(session.rows):
        return
    session.rows = [session.rows[place] for place in alive]
    if alive:
        places = np.array(alive)
        with jax.set_mesh(session.synthesizer.mesh):
            session.state, session.voices = _take(session.state, session.voices, places)
        session.seeds = session.seeds[places]


class _Chunk(NamedTuple):
    """A solved chunk: mel [rows, n * T, M] from the clip's frame `behind`, in which rows have `frames`; `done`: rows
    that end in it; `blocks`: how many are sounded together."""

    mel: jax.Array
    frames: np.ndarray
    behind: int
    done: np.ndarray
    blocks: int


def _next_mel(session: Session) -> _Chunk:
    """Solves the next chunk and keeps what the one after it needs."""
    synthesizer, schedule, rows = session.synthesizer, session.schedule, session.rows
    config, T = synthesizer.config, synthesizer.config.dit_config.block_size
    first, size = session.first, schedule.size(session.chunk)
    # What each row still has from this chunk on; of a row that goes on, no more than is needed is known.
    left = np.array([len(session.waiting[row]) for row in rows], np.int32) * config.dit_config.repeats
    frames = np.minimum(left, schedule.solved(session.chunk) * T)
    blocks = -(-int(frames.max()) // T)
    shape = schedule.fit(blocks)
    noise = session.noise and _rows_of_blocks([session.noise[row] for row in rows], first * T, shape, T)
    codes = _rows_of_blocks([session.waiting[row] for row in rows], 0, shape, config.codes_per_block)
    with jax.set_mesh(synthesizer.mesh):
        mel, kept = _solve(synthesizer.graphdef, synthesizer.params, synthesizer.table, session.voices, codes, noise,
                           session.seeds, np.int32(first), frames, np.int32(min(size, shape)), session.state.kept)
    session.state = session.state._replace(kept=kept)
    session.chunk += 1
    session.waiting = [row[size * config.codes_per_block:] for row in session.waiting]
    return _Chunk(mel, np.minimum(frames, size * T), first * T, session.ended[rows] & (left <= size * T),
                  schedule.fit_sound(min(blocks, size)))


def _next_sound(session: Session) -> Sound:
    """Solves the next chunk and sounds what it completes."""
    synthesizer, rows, chunk = session.synthesizer, session.rows, _next_mel(session)
    wave, tail = _sound(synthesizer, session.state.tail, chunk.mel, chunk.blocks, chunk.frames, chunk.behind)
    session.state = session.state._replace(tail=tail)
    everyone = [(0, 0, 0)] * len(session.counts)
    for place, span in enumerate(_spans(synthesizer.config, chunk.behind, chunk.frames, chunk.done)):
        everyone[rows[place]] = (place, *span)
    return Sound(wave, everyone, synthesizer.config.samples_per_code)


def _spans(config: Token2WavConfig, behind: int, frames: np.ndarray, done: np.ndarray) -> list[tuple[int, int]]:
    """Of each row the samples of a window that leave now. `behind`: mel frames before the chunk; `frames`: of each row
    in it. The last CONTEXT frames wait for what follows, unless the row is done."""
    rate = config.bigvgan_config.samples_per_frame
    tail = min(behind, 2 * CONTEXT)
    begin = min(tail, max(0, tail - CONTEXT))
    ends = np.where(done, frames, frames - CONTEXT) + tail
    return [(begin * rate, max(begin, end) * rate) if count > 0 else (0, 0)
            for end, count in zip(ends.tolist(), frames.tolist(), strict=True)]


def _sound(synthesizer: Synthesizer, tail: jax.Array, mel: jax.Array, blocks: int, frames: np.ndarray,
           behind: int) -> tuple[jax.Array, jax.Array]:
    """The window of a chunk: at most 2 * CONTEXT frames from before it, and its own blocks."""
    with jax.set_mesh(synthesizer.mesh):
        # Cut apart from the vocoder, which is large: it need not be compiled for each length that is solved.
        mel = _fitted(mel, blocks * synthesizer.config.dit_config.block_size)
        return _vocode(synthesizer.graphdef, synthesizer.params, tail, mel, np.int32(min(behind, 2 * CONTEXT)),
                       np.maximum(frames, 0), behind == 0)


# Jitted steps. A float32 product on TPU is one bfloat16 pass unless told otherwise, which the solver can't bear.

def _jit(**options: Any):
    return lambda step: jax.jit(jax.default_matmul_precision("highest")(step), **options)


@_jit(static_argnames=("graphdef", "steps"))
def _modulations(graphdef, params, steps: int) -> Modulations:
    return nnx.merge(graphdef, params).dit.modulations(dit.times(steps))


@_jit(static_argnames="graphdef")
def _voice(graphdef, params, vector, reference) -> jax.Array:
    return nnx.merge(graphdef, params).dit.voice(vector, reference)[0]


@functools.partial(jax.jit, static_argnames=("graphdef", "batch", "steps"))
def _empty(graphdef, params, batch: int, steps: int) -> State:
    network = nnx.merge(graphdef, params).dit
    return State(network.empty_kept(batch, steps), jnp.zeros((batch, 2 * CONTEXT, network.config.mel_dim), jnp.float32))


@jax.jit
def _take(state: State, voices, places) -> tuple[State, jax.Array]:
    both = jnp.concatenate([places, places + len(voices)])  # guided rows, then unguided ones
    return State(state.kept[:, :, :, both], state.tail[places]), voices[places]


@functools.partial(jax.jit, static_argnames=("blocks", "shape"))
def block_noise(seeds, first, blocks: int, shape: tuple[int, int]) -> jax.Array:
    """float32 [B, blocks, *shape]: of each row's seed and each block's number."""
    draw = lambda seed, block: jax.random.normal(jax.random.fold_in(jax.random.key(seed), block), shape)
    return jax.vmap(lambda seed: jax.vmap(lambda block: draw(seed, block))(first + jnp.arange(blocks)))(seeds)


@_jit(static_argnames="graphdef", donate_argnames="kept")
def _solve(graphdef, params, table, voices, codes, noise, seeds, first, frames, current, kept):
    """Codes [B, n, codes of a block] -> mel [B, n * T, M], and the new `kept`."""
    network = nnx.merge(graphdef, params).dit
    B, n, _ = codes.shape
    if noise is None:
        noise = block_noise(seeds, first, n, (network.config.block_size, network.config.mel_dim))
    view = network.view(first, frames, n, current)
    mel, kept = dit.solve(network, noise, network.given(codes, voices), table, view, kept)
    return mel.reshape(B, -1, mel.shape[-1]), kept


@functools.partial(jax.jit, static_argnames="width")
def _fitted(mel, width: int) -> jax.Array:
    """The first `width` frames of mel [B, T, M], and zeros where it has fewer."""
    return jnp.pad(mel[:, :width], ((0, 0), (0, max(0, width - mel.shape[1])), (0, 0)))


@_jit(static_argnames=("graphdef", "starts"))
def _vocode(graphdef, params, tail, mel, behind, frames, starts: bool):
    """`behind` (int32 []) frames of the tail, then mel [B, T, M] of which rows have `frames` -> (wave, new tail).

    The window begins at its first real frame: at the clip's start nothing may stand before frame 0.
    """
    joined = jnp.concatenate([tail, mel], axis=1)
    if starts:
        window = mel
    else:
        window = jax.lax.dynamic_slice_in_dim(jnp.pad(joined, ((0, 0), (0, tail.shape[1]), (0, 0))),
                                              tail.shape[1] - behind, joined.shape[1], axis=1)
    wave = nnx.merge(graphdef, params).bigvgan(window, jnp.maximum(frames + behind, 1))
    return wave, joined[:, -tail.shape[1]:]
