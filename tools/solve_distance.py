"""How far the solve in chunks of blocks is from the solve of the whole clip, and what a chunk costs.

    python -m tools.solve_distance --out out/solve_distance.png
    python -m tools.solve_distance --steps 300 --seeds 2 --json

A small DiT is taken twice: with random weights, and trained for a few minutes by flow matching on made mel whose tracks
run on across blocks (random weights flatter a truncated look-ahead, because they carry little from block to block).
For each chunk size and look-ahead, over seeds and lengths: the relative L2 distance of the mel, and the log-spectral
distance of the waveform (decibels, root mean square over a spectrogram; a random vocoder stands for the released one).
Then one reply of many codes is streamed, and the time of each chunk and the memory of its session are measured.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from omni_jax import OmniError, sharding
from omni_jax.config import BigVGANConfig, DiTConfig, Token2WavConfig
from omni_jax.inference import token2wav
from omni_jax.inference.schedule import SCHEDULE, Schedule
from omni_jax.models import dit
from omni_jax.models.token2wav import Token2Wav
from omni_jax.weights.speakers import Speaker
from tools import _cli

CONFIG = Token2WavConfig(
    DiTConfig(hidden_size=96, num_hidden_layers=6, num_attention_heads=4, head_dim=24, ff_mult=2, emb_dim=32,
              block_size=24, look_ahead_layers=(2,), look_backward_layers=(0, 4), repeats=2, num_embeds=63, mel_dim=20,
              rope_theta=10000.0, enc_emb_dim=8, enc_dim=8, enc_channels=(8, 8, 8, 16), enc_kernel_sizes=(5, 3, 3, 1),
              enc_dilations=(1, 2, 3, 1), enc_attention_channels=4, enc_res2net_scale=2, enc_se_channels=4),
    BigVGANConfig(mel_dim=20, upsample_initial_channel=32, resblock_kernel_sizes=(3,),
                  resblock_dilation_sizes=((1, 3, 5),), upsample_rates=(5, 4), upsample_kernel_sizes=(11, 8)))
CHUNKS, AHEADS, LENGTHS = (1, 2, 4, 8), (0, 1, 2, 3), (150, 233)
BLOCKS, ROWS = 6, 8  # of a training step


def made_mel(rng: np.random.Generator, rows: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Mel [rows, frames, M] of wandering tracks, and codes [rows, frames / 2] that tell little of them: the sixth part
    of an octave that one track is in, so that only the neighbours say how it moves."""
    M = CONFIG.dit_config.mel_dim
    t = np.arange(frames) / 100
    rates, phases = rng.uniform(0.3, 3, (2, rows, 3, 1)), rng.uniform(0, 2 * np.pi, (2, rows, 3, 1))
    centre, width = np.sin(2 * np.pi * rates * t + phases)[:, :, :, :, None]
    bins = np.linspace(-1.2, 1.2, M)
    mel = (np.exp(-((bins - centre) / (0.25 + 0.1 * width)) ** 2)).sum(axis=1) * 2 - 1
    place = np.clip((centre[:, 0, ::2, 0] + 1) * 4, 0, 7).astype(int) * 8
    level = np.clip((width[:, 1, ::2, 0] + 1) * 4, 0, 7).astype(int)
    return mel.astype(np.float32), (place + level).astype(np.int32)


def network(seed: int) -> tuple[nnx.GraphDef, dict]:
    """Random weights."""
    mesh = sharding.make_mesh("data=1")
    graphdef, abstract = sharding.abstract(lambda *args: Token2Wav(*args, scanned=False), CONFIG, mesh)
    leaves, structure = jax.tree.flatten(abstract)
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(0, 0.05 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5, shape)
    return graphdef, jax.tree.unflatten(structure, [jnp.asarray(draw(leaf.shape), jnp.float32) for leaf in leaves])


def speaker() -> Speaker:
    rng = np.random.default_rng(0)
    config = CONFIG.dit_config
    return Speaker(0, rng.normal(size=(1, config.enc_emb_dim)).astype(np.float32),
                   rng.normal(size=(1, 40, config.mel_dim)).astype(np.float32))


def flow_loss(params: Any, graphdef: nnx.GraphDef, mel: jax.Array, codes: jax.Array, key: jax.Array) -> jax.Array:
    """Between the guided velocity and that of the straight path from noise to mel, at times of the solver."""
    model, voice = nnx.merge(graphdef, params).dit, speaker()
    table, T = model.modulations(), CONFIG.dit_config.block_size
    rows, frames, M = mel.shape
    mel = mel.reshape(rows, 1, -1, T, M)
    keys = jax.random.split(key)
    noise, moments = jax.random.normal(keys[0], mel.shape), jax.random.randint(keys[1], (rows,), 0, len(dit.times()))
    t = jnp.asarray(dit.times())[moments].reshape(-1, 1, 1, 1, 1)
    voices = jnp.broadcast_to(model.voice(voice.cond, voice.ref_mel), (rows, 2, CONFIG.dit_config.hidden_size))
    given = model.given(codes.reshape(rows, -1, CONFIG.codes_per_block), voices)
    given = jnp.swapaxes(given.reshape(2, rows, *given.shape[1:]), 0, 1)
    blocks = frames // T
    view = model.view(jnp.int32(0), jnp.full(1, frames), blocks, jnp.int32(blocks))
    velocity = lambda x, given, moment: model(x, given, jax.tree.map(lambda w: w[moment], table), view)[0]
    return jnp.mean((jax.vmap(velocity)((1 - t) * noise + t * mel, given, moments) - (mel - noise)) ** 2)


def train(graphdef: nnx.GraphDef, params: dict, steps: int) -> tuple[dict, list[float]]:
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    state, rng = optimizer.init(params), np.random.default_rng(1)

    @jax.jit
    def step(params, state, mel, codes, key):
        loss, gradient = jax.value_and_grad(flow_loss)(params, graphdef, mel, codes, key)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for i in tqdm(range(steps), "training", disable=None):
        params, state, loss = step(params, state, *made_mel(rng, ROWS, BLOCKS * 24), jax.random.key(i))
        losses.append(float(loss))
    return params, losses


def spectral_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square, in decibels, between the log spectra of two waveforms (windows of 512, hop 128)."""
    def spectrum(wave):
        frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::128] * np.hanning(512)
        return 20 * np.log10(np.abs(np.fft.rfft(frames)) + 1e-4)

    return float(np.sqrt(np.mean((spectrum(a) - spectrum(b)) ** 2)))


def distances(synthesizer: token2wav.Synthesizer, seeds: int) -> list[dict[str, Any]]:
    """A row for each chunk size and look-ahead, and one for the default schedule."""
    voice = token2wav.encode_speaker(synthesizer, speaker())
    cases = [(seed, made_mel(np.random.default_rng(100 + seed), 1, 2 * length)[1][0])
             for seed in range(seeds) for length in LENGTHS]
    heard = lambda mel: token2wav.vocode(synthesizer, mel[None], np.array([len(mel)]))[0]
    solved = [np.asarray(token2wav.whole_mel(synthesizer, [voice], [codes], np.array([seed]))[0, :2 * len(codes)])
              for seed, codes in cases]
    whole = [(mel, heard(mel)) for mel in solved]
    schedules = [Schedule((chunk,), (ahead,)) for ahead in AHEADS for chunk in CHUNKS] + [SCHEDULE]
    rows = []
    for schedule in tqdm(schedules, "schedules", disable=None):
        mels, waves = [], []
        for (seed, codes), (mel, wave) in zip(cases, whole, strict=True):
            ours = token2wav.block_mel(synthesizer, voice, codes, seed, schedule)
            mels.append(float(np.linalg.norm(ours - mel) / np.linalg.norm(mel)))
            waves.append(spectral_distance(heard(ours), wave))
        rows.append({"chunk": list(schedule.sizes), "ahead": list(schedule.aheads), "mel": max(mels),
                     "mel_mean": float(np.mean(mels)), "spectral_db": max(waves)})
    return rows


def cost(synthesizer: token2wav.Synthesizer, codes: int) -> dict[str, Any]:
    """Seconds of each chunk of one long reply, and bytes that its session holds after each."""
    voice = token2wav.encode_speaker(synthesizer, speaker())
    session = token2wav.begin(synthesizer, [voice], np.zeros(1, np.uint32), SCHEDULE)
    rng, seconds, held, samples = np.random.default_rng(0), [], [], 0
    for _ in tqdm(range(codes // CONFIG.codes_per_block), "long reply", disable=None):
        begun = time.perf_counter()
        sounds = token2wav.push(session, [rng.integers(0, 64, CONFIG.codes_per_block)])
        samples += sum(len(sound.rows()[0]) for sound in sounds)
        if sounds and session.chunk > 2 * len(SCHEDULE.sizes):
            seconds.append(time.perf_counter() - begun)
            held.append(sum(x.nbytes for x in (*session.state, session.voices, *session.waiting)))
    third = len(seconds) // 3
    return {"codes": codes, "chunks": len(seconds), "samples": samples, "seconds": seconds, "bytes": held,
            "median_seconds_first_third": float(np.median(seconds[:third])),
            "median_seconds_last_third": float(np.median(seconds[-third:])), "bytes_held": [min(held), max(held)]}


def draw(path: Path, tables: dict[str, list[dict]], long: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(20, 4.5))
    for axis, (name, rows) in zip(axes, tables.items(), strict=False):
        for chunk in CHUNKS:
            line = [row["mel"] for row in rows if row["chunk"] == [chunk]]
            axis.semilogy(AHEADS, [100 * value for value in line], "o-", label=f"chunks of {chunk}")
        axis.set(title=f"{name} weights", xlabel="blocks of look-ahead", ylabel="mel, % from the whole solve")
        axis.legend()
    axes[2].plot(long["seconds"], ".")
    axes[2].set(title=f"seconds of each chunk, {long['codes']:,} codes", xlabel="chunk", ylim=(0, None))
    axes[3].plot(np.array(long["bytes"]) / 1e6)
    axes[3].set(title="megabytes held by the session", xlabel="chunk", ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = _cli.parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="of training (default 1500)")
    parser.add_argument("--seeds", type=int, default=4, help="of noise and codes (default 4)")
    parser.add_argument("--codes", type=int, default=30_000, help="of the long reply (default 30,000)")
    parser.add_argument("--out", type=Path, help="where to draw the table and the costs (PNG)")
    options = parser.parse_args(argv)
    if min(options.steps, options.seeds) < 1 or options.codes < 1000:
        raise OmniError("--steps and --seeds must be at least 1, --codes at least 1000")
    mesh, (graphdef, params) = sharding.make_mesh("data=1"), network(0)
    prepared = lambda params: token2wav.prepare(CONFIG, graphdef, params, mesh)
    tables = {"random": distances(prepared(params), options.seeds)}
    trained, losses = train(graphdef, params, options.steps)
    tables["trained"] = distances(prepared(trained), options.seeds)
    long = cost(prepared(params), options.codes)
    if options.out:
        draw(options.out, tables, long)
    summary = {key: value for key, value in long.items() if key not in ("seconds", "bytes")}
    if options.json:
        _cli.show({"loss": [losses[0], float(np.mean(losses[-50:]))], "distances": tables, "long": summary}, True)
        return
    print(f"flow-matching loss {losses[0]:.3f} -> {np.mean(losses[-50:]):.3f}; worst (mean) of {options.seeds} seeds x "
          f"lengths {', '.join(map(str, LENGTHS))}")
    for name, rows in tables.items():
        print(f"{name} weights: chunk / ahead: mel, % of its L2 norm; log-spectral distance of the waveform, dB")
        for row in rows:
            chunks, aheads = (", ".join(map(str, row[name])) for name in ("chunk", "ahead"))
            print(f"  {chunks:>10} / {aheads:4}  {100 * row['mel']:9.4f} % ({100 * row['mel_mean']:.4f})  "
                  f"{row['spectral_db']:7.3f} dB")
    _cli.show(summary, False)


if __name__ == "__main__":
    _cli.run(main)
