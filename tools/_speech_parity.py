"""The speaking half against the PyTorch reference: the Talker alone, and its greedy codes after a greedy text."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_jax.data.batch import Prompt, collate
from omni_jax.inference import generate, stream
from omni_jax.inference.replies import Options
from omni_jax.inference.sampling import Sampling
from omni_jax.inference.speech import Speaking

SOUNDED = 30  # codes of which sound is made
TOKENS, CODES = 40, 200  # of the greedy reply and its speech, which nothing ends
DIFFERENT = 20  # codes of each row that must differ from one another: a Talker that repeats one code proves nothing
PENALTY = 1.05


def restore_mask(reference: Any) -> None:
    """transformers 5.23.0 drops a mask of ones before its Talker, which then lacks its first marks and TMRoPE."""
    import torch

    def give(_, args, kwargs):
        x = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
        cache = kwargs.get("past_key_values")
        length = x.shape[1] + (cache.get_seq_length() if cache is not None else 0)
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = torch.ones(x.shape[0], length, dtype=torch.long)
        return args, kwargs

    reference.talker.register_forward_pre_hook(give, with_kwargs=True)


def talker_error(omni: Any, reference: Any, relative: Any, length: int = 70) -> float:
    """Projection, layers and head on the same vectors and TMRoPE-like positions: the greatest relative error."""
    import torch

    network, rng = omni.voices.talker, np.random.default_rng(2)
    x = rng.normal(size=(2, length, network.config.embedding_size)).astype(np.float32)
    positions = np.cumsum(rng.integers(0, 5, (3, 2, length)), axis=-1).astype(np.int32) + 9_000
    theirs = reference.talker.model(inputs_embeds=reference.talker.thinker_to_talker_proj(torch.tensor(x)),
                                    position_ids=torch.tensor(positions).long(), use_cache=False).last_hidden_state
    talker = nnx.merge(network.graphdef, network.params)
    cache = talker.decoder.empty_cache(2, length)
    hidden, _ = talker(jnp.asarray(x), jnp.asarray(positions), jnp.ones((2, length), bool), cache)
    heads = relative(talker.logits(hidden), reference.talker.codec_head(theirs))
    return max(relative(hidden, theirs), heads)


def our_speech(omni: Any, prompts: list[Prompt], speaker: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [B, TOKENS], codes [B, CODES], the codes' logits [B, CODES, C]), greedy."""
    network, talker = (dataclasses.replace(each, ends=()) for each in (omni.network, omni.voices.talker))
    rows = len(prompts)
    speaking = Speaking(talker, unheard(omni), Sampling(repetition_penalty=PENALTY), CODES,
                        np.full(rows, omni.speakers[speaker].bos_token, np.int32))
    session = generate.begin(network, collate(prompts, omni.config), Sampling(), np.full(rows, TOKENS, np.int32),
                             np.zeros(rows, np.uint32), speaking=speaking)
    logits = []
    for count in range(1, CODES + 1):
        stream.speak(network, session, count)
        logits.append(np.asarray(session.speech.state.codes.logits))
    return (np.asarray(session.state.tokens)[:, :TOKENS],
            np.asarray(session.speech.state.codes.tokens)[:, :CODES], np.stack(logits, axis=1))


def unheard(omni: Any) -> np.ndarray:
    """bool [C]: all codec ids that are not sounds, ends too."""
    rows = omni.config.token2wav_config.dit_config.codec_rows
    return np.arange(omni.config.talker_config.vocab_size) >= rows


def their_speech(omni: Any, reference: Any, inputs: dict, speaker: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from the reference."""
    endless = [omni.config.talker_config.vocab_size + 1]
    tokens, record = _generated(reference, inputs, speaker, unheard(omni), (TOKENS, None), (CODES, endless))
    logits = np.stack([step.numpy() for step in record["logits"]], axis=1)
    return tokens.numpy(), record["sequences"][:, -CODES:].numpy(), logits


def their_reply(omni: Any, reference: Any, inputs: dict, speaker: str, most_tokens: int,
                most_codes: int) -> tuple[list[int], list[int]]:
    """(tokens, codes) of the reference's greedy reply to one prompt, up to their ends."""
    talker = omni.voices.talker
    never = omni.voices.speaking([speaker], Sampling(), Options()).never
    tokens, record = _generated(reference, inputs, speaker, never, (most_tokens, list(omni.network.ends)),
                                (most_codes, list(talker.ends)))
    codes = record["sequences"][0, -len(record["logits"]):]
    return tuple([each for each in row.tolist() if each not in ends]
                 for row, ends in ((tokens[0], omni.network.ends), (codes, talker.ends)))


def _generated(reference: Any, inputs: dict, speaker: str, never: np.ndarray, text: tuple[int, list[int] | None],
               speech: tuple[int, list[int]]) -> tuple[Any, dict[str, Any]]:
    """(the reply's tokens, the record of the Talker), greedy. text, speech: (how many at most, what ends them); never:
    bool [C], ids that are no code."""
    # Its generate hands plain pixel_values on to the Talker, which rejects them.
    inputs = {f"thinker_{name}" if name.startswith("pixel_values") else name: value for name, value in inputs.items()}
    with _recorded(reference, np.flatnonzero(never).tolist()) as record:
        sequences, *_ = reference.generate(
            **inputs, speaker=speaker, thinker_max_new_tokens=text[0], thinker_do_sample=False,
            thinker_eos_token_id=text[1], thinker_repetition_penalty=1.0, talker_max_new_tokens=speech[0],
            talker_do_sample=False, talker_eos_token_id=speech[1], talker_repetition_penalty=PENALTY)
    return sequences[:, inputs["input_ids"].shape[1]:], record


@contextlib.contextmanager
def _recorded(reference: Any, never: list[int]) -> Iterator[dict[str, Any]]:
    """The Talker's outputs, with other ids suppressed, and no sound made of its codes."""
    import torch

    record: dict[str, Any] = {}
    generate_codes, forward = reference.talker.generate, reference.token2wav.forward

    def recording(**options):
        found = generate_codes(**{**options, "suppress_tokens": never}, output_logits=True,
                               return_dict_in_generate=True)
        record.update(found)
        return found.sequences

    reference.talker.generate, reference.token2wav.forward = recording, lambda *_, **__: torch.zeros(1)
    try:
        yield record
    finally:
        reference.talker.generate, reference.token2wav.forward = generate_codes, forward


def waveform_error(omni: Any, reference: Any, codes: np.ndarray, speaker: str) -> float:
    """The waveform of codes from the same noise by the whole-clip solve: our distance from the reference in float64,
    as a multiple of its own in float32."""
    rng, voice = np.random.default_rng(3), omni.speakers[speaker]
    config = omni.config.token2wav_config.dit_config
    noise = rng.normal(size=(len(codes) * config.repeats, config.mel_dim)).astype(np.float32)
    ours = omni.token2wav(codes, speaker=speaker, solve="whole", noise=noise)
    theirs = _their_waveform(reference.token2wav, codes, voice, noise)
    exact = _their_waveform(copy.deepcopy(reference.token2wav).double(), codes, voice, noise)
    return float(np.abs(ours - exact).max() / np.abs(theirs - exact).max())


def _their_waveform(model: Any, codes: np.ndarray, voice: Any, noise: np.ndarray) -> np.ndarray:
    import torch

    dtype = next(model.parameters()).dtype
    with noise_of_reference(noise):
        return model(torch.tensor(codes)[None], torch.tensor(voice.cond, dtype=dtype),
                     torch.tensor(voice.ref_mel, dtype=dtype)).reshape(-1).numpy()


@contextlib.contextmanager
def noise_of_reference(noise: np.ndarray) -> Iterator[None]:
    """The reference's Token2Wav draws its own noise: meanwhile it draws this, [frames, M]."""
    import torch

    drawn, torch.randn = torch.randn, lambda *_, dtype, **__: torch.tensor(noise, dtype=dtype)[None]
    try:
        yield
    finally:
        torch.randn = drawn


def compare(omni: Any, reference: Any, prompts: list[Prompt], inputs: dict, relative: Any, part: float,
            end_to_end: float) -> Iterator[tuple[str, float, float]]:
    """(what, error, bar) of the speech of one batch."""
    speaker = next(iter(omni.speakers))
    yield "Talker", talker_error(omni, reference, relative), part
    tokens, codes, logits = our_speech(omni, prompts, speaker)
    their_tokens, their_codes, their_logits = their_speech(omni, reference, inputs, speaker)
    yield f"tokens before {CODES} codes that differ", float((tokens != their_tokens).sum()), 0.0
    yield f"{CODES} greedy codes that differ", float((codes != their_codes).sum()), 0.0
    steps = [relative(ours, theirs) for ours, theirs in zip(np.moveaxis(logits, 1, 0), np.moveaxis(their_logits, 1, 0),
                                                            strict=True)]
    yield "their logits, the worst step", max(steps), end_to_end
    fewest = min(len(set(row.tolist())) for row in their_codes)
    yield "waveform, in their own roundings", waveform_error(omni, reference, their_codes[0, :SOUNDED], speaker), 4.0
    yield f"different codes short of {DIFFERENT}", float(max(0, DIFFERENT - fewest)), 0.0
