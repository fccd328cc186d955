"""The speaking parts of tools/benchmark.py: each network beside the reference's, a whole spoken reply, and a batch."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax import Omni, OmniError
from omni_jax.data.batch import Prompt, collate
from omni_jax.inference import generate as generation
from omni_jax.inference import stream, token2wav
from omni_jax.inference.replies import AudioChunk, Options
from omni_jax.inference.sampling import Sampling
from omni_jax.inference.schedule import SCHEDULE
from omni_jax.models import dit as solver
from tools import _measure, _speech_work
from tools._measure import Job, Side, Spread
from tools._speech_parity import PENALTY, noise_of_reference, unheard
from tools.parity import reference_inputs, relative

TALKER_CONTEXT, TALKER_STEPS = 512, 16
CLIP = 48  # codes of which the networks make mel and sound: 0.96 s, a whole number of blocks
TOKENS, CODES, FEW_CODES = 40, 500, 100  # of a spoken reply that nothing ends
ROWS = 8
SAME_WAVE = 1e-4  # of full scale, between a row of a batch and the same reply alone
QUESTIONS = ("What is the time in Lima when it is noon in Oslo?", "Hi.", "Name three rivers.", "Who wrote Faust?",
             "How far is the moon, in kilometres, and how long would a train take?", "Sing!", "Why?", "Count to ten.")


# Networks

def talker(omni: Omni, reference: Any) -> Iterator[Job]:
    """Greedy codes of one row when the Thinker is done, each from the one before and the cache."""
    prompt = Prompt(np.random.default_rng(0).integers(0, 256, TALKER_CONTEXT, dtype=np.int32), (), (), ())
    ours = endless(omni)
    never = ours.voices.speaking([_speaker(omni)], Sampling(), Options(talker_max_new_tokens=4 * TALKER_STEPS))
    session = generation.begin(ours.network, collate([prompt], omni.config), Sampling(), np.array([2], np.int32),
                               np.zeros(1, np.uint32), speaking=never)
    stream.speak(ours.network, session, 2)  # the Thinker's two tokens, and two codes
    jax.block_until_ready(session.speech.state)

    def run(caches):
        speech = dataclasses.replace(session.speech, cache=caches[1])
        own = dataclasses.replace(session, cache=caches[0], speech=speech)
        stream.speak(ours.network, own, 2 + TALKER_STEPS)
        codes = speech.state.codes
        return np.asarray(codes.tokens)[0, 2:2 + TALKER_STEPS].tolist(), codes.logits

    past, first = _their_start(omni, reference, prompt)
    length = past.get_seq_length()

    def shorten():
        past.crop(length - past.get_seq_length())
        return ()

    config = omni.config.talker_config
    work = _speech_work.talker_bytes(config, TALKER_CONTEXT + TALKER_STEPS // 2)
    copies = lambda: jax.block_until_ready(jax.tree.map(jnp.copy, (session.cache, session.speech.cache)))
    yield Job("talker", f"1 row, {TALKER_STEPS} codes after {TALKER_CONTEXT} tokens", Side(run, lambda: (copies(),)),
              Side(lambda: _their_codes(omni, reference, past, first), shorten),
              lambda a, b: max(relative(a[1], b[1]), float("inf") if a[0] != b[0] else 0),
              TALKER_STEPS, "codes/s", TALKER_STEPS * work, "read")


def _their_start(omni: Omni, reference: Any, prompt: Prompt) -> tuple[Any, int]:
    """The reference's cache of a prompt, two tokens and the first code; and the second code, not yet fed in."""
    import torch

    with _unheard_silenced(omni, reference, return_dict_in_generate=True) as made:
        sound, reference.token2wav.forward = reference.token2wav.forward, lambda *_, **__: torch.zeros(1)
        try:
            _their_reply(omni, reference, reference_inputs(omni.config.thinker_config, [prompt], False), 2, 2, 1.0)
        finally:
            reference.token2wav.forward = sound
    return made[0].past_key_values, int(made[0].sequences[0, -1])


def _their_codes(omni: Omni, reference: Any, past: Any, code: int) -> tuple[list[int], Any]:
    """The reference's greedy codes, one call of its forward for each, and the last logits."""
    import torch

    pad = torch.tensor([[omni.config.talker_config.tts_text_pad_token_id]])
    pad, silent, codes = reference.thinker.get_input_embeddings()(pad), torch.tensor(unheard(omni)), []
    for _ in range(TALKER_STEPS):
        logits = reference.talker(input_ids=torch.tensor([[code]]), thinker_reply_part=pad, past_key_values=past,
                                  use_cache=True).logits[:, -1]
        code = int(logits.masked_fill(silent, -torch.inf).argmax())
        codes.append(code)
    return codes, logits


def dit(omni: Omni, reference: Any) -> Iterator[Job]:
    """One of the solver's evaluations of the network, with guidance. (The reference computes the voice in each.)"""
    import torch

    synthesizer, voice, codes, noise = _clip(omni)
    config, blocks, moment = synthesizer.config.dit_config, CLIP // synthesizer.config.codes_per_block, 7
    x = noise.reshape(1, blocks, config.block_size, -1)
    with jax.set_mesh(synthesizer.mesh):
        given = _given(synthesizer.graphdef, synthesizer.params, codes.reshape(1, blocks, -1),
                       token2wav.encode_speaker(synthesizer, voice)[None])
    inputs = (torch.tensor(noise)[None], torch.tensor(voice.ref_mel),
              torch.tensor(voice.cond)[:, None].repeat(1, len(noise), 1), torch.tensor(codes)[None])

    def ours():
        with jax.set_mesh(synthesizer.mesh):
            return _velocity(synthesizer.graphdef, synthesizer.params, synthesizer.table, moment, x,
                             given).block_until_ready().reshape(1, len(noise), -1)

    def theirs():
        guided, free = reference.token2wav.code2wav_dit_model(
            *inputs, torch.tensor(solver.times()[moment])).chunk(2)
        return guided + solver.GUIDANCE * (guided - free)

    yield Job("dit", f"1 evaluation, {len(noise)} frames", Side(ours), Side(theirs), relative, len(noise), "frames/s",
              _speech_work.dit_flops(config, blocks), "matmul")


@functools.partial(jax.jit, static_argnames="graphdef")
def _given(graphdef, params, codes, voices):
    return nnx.merge(graphdef, params).dit.given(codes, voices)


@functools.partial(jax.jit, static_argnames="graphdef")
def _velocity(graphdef, params, table, moment, x, given):
    network, blocks = nnx.merge(graphdef, params).dit, x.shape[1]
    view = network.view(jnp.int32(0), jnp.array([blocks * x.shape[2]]), blocks, jnp.int32(blocks))
    return network(x, given, jax.tree.map(lambda w: w[moment], table), view)[0]


def bigvgan(omni: Omni, reference: Any) -> Iterator[Job]:
    """The vocoder alone, on made mel."""
    import torch

    synthesizer, _, _, noise = _clip(omni)
    frames = np.array([len(noise)])
    mel, theirs = jnp.asarray(noise)[None], torch.tensor(noise)[None].transpose(1, 2)
    work = _speech_work.bigvgan_flops(synthesizer.config.bigvgan_config, len(noise))
    yield Job("bigvgan", f"{len(noise)} frames", Side(lambda: token2wav.vocode(synthesizer, mel, frames)[0]),
              Side(lambda: reference.token2wav.code2wav_bigvgan_model(theirs).reshape(-1)), relative,
              _seconds(omni), "s/s", work, "matmul")


def ecapa(omni: Omni, reference: Any) -> Iterator[Job]:
    """The speaker encoder alone, on a voice's reference mel."""
    import torch

    synthesizer, voice, _, _ = _clip(omni)
    mel, theirs = jnp.asarray(voice.ref_mel), torch.tensor(voice.ref_mel)
    encode = jax.jit(lambda params, mel: nnx.merge(synthesizer.graphdef, params).dit.speaker(mel))
    encoder = reference.token2wav.code2wav_dit_model.input_embed.spk_encoder
    yield Job("ecapa", f"{mel.shape[1]} frames", Side(lambda: encode(synthesizer.params, mel).block_until_ready()),
              Side(lambda: encoder(theirs).reshape(1, -1)), relative, mel.shape[1], "frames/s",
              _speech_work.ecapa_flops(synthesizer.config.dit_config, mel.shape[1]), "matmul")


def whole_clip(omni: Omni, reference: Any) -> Iterator[Job]:
    """Token2Wav whole, from codes to sound: both by the reference's solve, from the same noise."""
    import torch

    synthesizer, voice, codes, noise = _clip(omni)
    inputs = torch.tensor(codes)[None], torch.tensor(voice.cond), torch.tensor(voice.ref_mel)

    def theirs():
        with noise_of_reference(noise):
            return reference.token2wav(*inputs).reshape(-1)

    ours = lambda: omni.token2wav(codes, speaker=_speaker(omni), solve="whole", noise=noise)
    config = synthesizer.config
    yield Job("token2wav", f"{CLIP} codes, whole solve", Side(ours), Side(theirs), relative, _seconds(omni), "s/s",
              _speech_work.token2wav_flops(config, CLIP // config.codes_per_block), "matmul", fewest=1)


PARTS = {"talker": talker, "dit": dit, "bigvgan": bigvgan, "ecapa": ecapa, "token2wav": whole_clip}


def _clip(omni: Omni) -> tuple[token2wav.Synthesizer, Any, np.ndarray, np.ndarray]:
    """Token2Wav, a voice, codes [CLIP] and noise [frames, M]."""
    synthesizer, rng = omni.voices.synthesizer, np.random.default_rng(0)
    config = synthesizer.config.dit_config
    noise = rng.normal(size=(CLIP * config.repeats, config.mel_dim)).astype(np.float32)
    codes = rng.integers(0, config.codec_rows, CLIP).astype(np.int32)
    return synthesizer, omni.speakers[_speaker(omni)], codes, noise


def _seconds(omni: Omni) -> float:
    return CLIP * omni.config.token2wav_config.samples_per_code / token2wav.SAMPLE_RATE


def _speaker(omni: Omni) -> str:
    return next(iter(omni.speakers))


# Whole replies

def reply(omni: Omni, reference: Any, repeats: int) -> Iterator[dict[str, Any]]:
    """A spoken reply of CODES codes as a stream, beside the reference, which gives all sound at its end; then how soon
    a short reply sounds, and what each stage takes alone. Raises OmniError if the codes differ."""
    conversation = [{"role": "user", "content": QUESTIONS[0]}]
    ours = endless(omni)
    inputs = reference_inputs(omni.config.thinker_config, [omni.prompt(conversation)], False)
    heard = _streamed(ours, conversation, CODES)
    with _unheard_silenced(omni, reference) as made:
        theirs = lambda: _their_reply(omni, reference, inputs, TOKENS, CODES, PENALTY)
        _, wave = theirs()
        wrong = int((made.pop().numpy()[0, -CODES:] != heard.codes).sum())
        if wrong or wave.shape[-1] != heard.samples:
            raise OmniError(f"reply: {wrong} of {CODES} codes differ from the reference's, so there is nothing to time")
        _streamed(ours, conversation, FEW_CODES)
        rounds = []
        for _ in range(repeats):
            seconds = _timed(theirs)
            rounds.append((_streamed(ours, conversation, CODES), _streamed(ours, conversation, FEW_CODES), seconds))
    long, short, seconds = zip(*rounds, strict=True)
    first, whole = [run.first_sound for run in long], [run.total for run in long]
    for detail, own in (("first sound", first), ("whole reply", whole)):
        yield {"part": "reply", "detail": f"{detail} of {CODES} codes", "rounds": repeats, "difference": 0.0,
               "unit": "s", "ours": Spread.of(own), "reference": Spread.of(seconds),
               "ratio": _measure.ratio(seconds, own)}
    yield {"part": "reply", "detail": f"first sound of {FEW_CODES} codes", "rounds": repeats, "pieces": {},
           "total": Spread.of([run.first_sound for run in short])}
    stages = [_stages(ours, conversation, heard.codes) for _ in range(1 + repeats)][1:]
    yield {"part": "reply", "detail": "its stages, each alone", "rounds": repeats, "total": Spread.of(whole),
           "pieces": {name: statistics.median(run[name] for run in stages) for name in stages[0]}}


def batch(omni: Omni, reference: Any, repeats: int) -> Iterator[dict[str, Any]]:
    """ROWS spoken replies as one batch, and one after the other. Raises OmniError if a row is not what it is alone."""
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS[:ROWS]]
    ours = endless(omni)
    together = lambda: _reply(ours, conversations, CODES)
    singles = lambda: [_reply(ours, each, CODES) for each in conversations]
    difference = 0.0
    for row, (own, alone) in enumerate(zip(together(), singles(), strict=True)):
        if own.token_ids != alone.token_ids or own.codes.tolist() != alone.codes.tolist():
            raise OmniError(f"batch: row {row}'s tokens or codes are not those of the same reply alone")
        difference = max(difference, float(np.abs(own.waveform - alone.waveform).max()))
    if difference > SAME_WAVE:
        raise OmniError(f"batch: a row's sound differs by {difference:.1e} from that of the same reply alone")
    times = _measure.rounds({"batch": Side(together), "singles": Side(singles)}, repeats, 0)
    share = [a / b for a, b in zip(times["batch"], times["singles"], strict=True)]
    pieces = {f"{ROWS} single": statistics.median(times["singles"]), "share": statistics.median(share)}
    yield {"part": "batch", "detail": f"{ROWS} replies of {CODES} codes", "rounds": len(share), "pieces": pieces,
           "difference": difference, "share": Spread.of(share), "total": Spread.of(times["batch"])}


REPLIES = {"reply": reply, "batch": batch}


@dataclasses.dataclass(frozen=True)
class Heard:
    """A streamed reply: its codes, its samples, and the seconds to its first sound and to its end."""

    codes: np.ndarray
    samples: int
    first_sound: float
    total: float


def endless(omni: Omni) -> Omni:
    """The same model, which nothing ends: neither its text nor its speech."""
    voices = omni.voices
    talker = dataclasses.replace(voices.talker, ends=())
    voices = type(voices)(voices.config, talker, voices.synthesizer, voices.speakers, voices.directory)
    return Omni(omni.config, dataclasses.replace(omni.network, ends=()), omni.processor, omni.sampling, voices)


def _greedy(omni: Omni, codes: int) -> dict[str, Any]:
    return {"speaker": _speaker(omni), "max_new_tokens": TOKENS, "temperature": 0, "talker_max_new_tokens": codes,
            "talker_temperature": 0, "talker_repetition_penalty": PENALTY}


def _reply(omni: Omni, conversations: Any, codes: int) -> Any:
    return omni.generate(conversations, **_greedy(omni, codes))


def _streamed(omni: Omni, conversation: list, codes: int) -> Heard:
    begun, first, parts, samples = time.perf_counter(), None, [], 0
    for chunk in omni.stream(conversation, **_greedy(omni, codes)):
        if isinstance(chunk, AudioChunk):
            first = first or time.perf_counter() - begun
            parts.append(chunk.codes)
            samples += len(chunk.waveform)
    return Heard(np.concatenate(parts), samples, first, time.perf_counter() - begun)


def _stages(omni: Omni, conversation: list, codes: np.ndarray) -> dict[str, float]:
    """Seconds of the prompt up to the first token, of both networks' loop, and of Token2Wav: up to the first sound, and
    all of it."""
    begun = time.perf_counter()
    request = omni.request(Options(**_greedy(omni, len(codes))), np.zeros(1, np.uint32))
    session = omni.begin([omni.prompt(conversation)], request, begun)
    jax.block_until_ready(session.speech.state)
    stages = {"prompt": time.perf_counter() - begun}
    synthesizer = omni.voices.synthesizer
    needed = SCHEDULE.codes_needed(0, synthesizer.config.codes_per_block)
    for name, limit in ((f"{needed} codes", needed), ("all codes", len(codes))):
        stages[name] = _timed(lambda limit=limit: _until(omni, session, limit))
    stages["all codes"] += stages[f"{needed} codes"]
    voice = token2wav.encode_speaker(synthesizer, omni.speakers[_speaker(omni)])
    sounding = token2wav.begin(synthesizer, [voice], np.zeros(1, np.uint32))
    hear = lambda sounds: [sound.rows() for sound in sounds]
    stages["first sound"] = _timed(lambda: hear(token2wav.push(sounding, [codes[:needed]])))
    rest = _timed(lambda: hear(token2wav.push(sounding, [codes[needed:]], [True])))
    return stages | {"all sound": stages["first sound"] + rest}


def _until(omni: Omni, session: Any, limit: int) -> None:
    """The lock-step up to so many codes, launched as a reply launches it."""
    for count in range(stream.BLOCK, limit + stream.BLOCK, stream.BLOCK):
        stream.speak(omni.network, session, min(count, limit))
        session.speech.state.codes.tokens.block_until_ready()


def _timed(run: Any) -> float:
    time.sleep(_measure.PAUSE)
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


# The reference

def _their_reply(omni: Omni, reference: Any, inputs: dict, tokens: int, codes: int, penalty: float) -> tuple[Any, Any]:
    """(tokens, waveform) of so many tokens and codes: ids beyond its vocabulary end nothing."""
    endless = [omni.config.talker_config.vocab_size + 1]
    return reference.generate(
        **inputs, speaker=_speaker(omni), thinker_max_new_tokens=tokens, thinker_do_sample=False,
        thinker_eos_token_id=None, thinker_repetition_penalty=1.0, talker_max_new_tokens=codes,
        talker_do_sample=False, talker_eos_token_id=endless, talker_repetition_penalty=penalty)


@contextlib.contextmanager
def _unheard_silenced(omni: Omni, reference: Any, **options: Any) -> Iterator[list]:
    """Its Talker draws only codes that are sounds: what it draws is gathered. One masked fill a step, which is less
    than its own list of suppressed tokens costs."""
    import torch

    silent, made, generate = torch.tensor(unheard(omni)), [], reference.talker.generate
    mask = lambda _, scores: scores.masked_fill(silent, -torch.inf)

    def generate_sounds(**given):
        made.append(generate(**given, logits_processor=[mask], **options))
        return getattr(made[-1], "sequences", made[-1])

    reference.talker.generate = generate_sounds
    try:
        yield made
    finally:
        reference.talker.generate = generate
