"""Speaking while thinking: Thinker and Talker step together on the device.

Reply vector k is what the Talker hears of the reply's token k (see steps.think); after a row's last token, which the
Thinker never feeds in, comes the embedding of the end of text, and then that of its padding for ever. One Talker step
takes vector k and code k - 1 (at first the mark before all codes) and draws code k. So it runs in the same turn of the
loop as the Thinker step that draws token k + 1, and goes on alone after the Thinker's end.
Source: Qwen2_5OmniForConditionalGeneration.generate.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from omni_jax.config import TalkerConfig, ThinkerConfig
from omni_jax.inference import steps
from omni_jax.inference.sampling import Sampler
from omni_jax.inference.steps import DecodeState
from omni_jax.models.kv_cache import KVCache
from omni_jax.models.talker import Talker
from omni_jax.sharding import constrain

FIRST_DRAW = 1 << 20  # of the codes, among the draws of a seed: tokens have those below


class Plan(NamedTuple):
    """What shapes the compiled program."""

    thinker: nnx.GraphDef
    talker: nnx.GraphDef
    thinker_config: ThinkerConfig
    talker_config: TalkerConfig
    text_sampler: Sampler
    code_sampler: Sampler


class Settings(NamedTuple):
    """Numbers that change nothing compiled. The samplers' numbers float32 [3]; ends int32 [E]: of text and of codes;
    never bool [C]: ids that are neither sounds nor ends; text_end, text_pad [E]: their embeddings."""

    text_numbers: jax.Array
    code_numbers: jax.Array
    text_ends: jax.Array
    code_ends: jax.Array
    never: jax.Array
    text_end: jax.Array
    text_pad: jax.Array


class SpeechState(NamedTuple):
    """What the Talker adds to the state of a reply. `codes`: its own loop, whose tokens are codec ids."""

    codes: DecodeState
    told: jax.Array    # bool [B]: has heard the end of the text
    resume: jax.Array  # int32 [B]: the lowest rotary id from the second code on


@functools.partial(jax.jit, static_argnames=("graphdef", "config"))
def marks(graphdef, config: TalkerConfig, params, first_tokens) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The Thinker's embeddings of the end of text [E], its padding [E] and the voices' first tokens [B, E]."""
    embed = nnx.merge(graphdef, params).embed
    return (embed(jnp.array(config.tts_text_end_token_id)), embed(jnp.array(config.tts_text_pad_token_id)),
            embed(first_tokens))


@functools.partial(jax.jit, static_argnames="graphdef", donate_argnames="cache")
def hear(graphdef, params, cache, hidden, embeddings, media, positions, valid) -> KVCache:
    """One chunk of the prompt into the Talker's cache: the Thinker's final-norm hidden vectors and embeddings
    [B, T, E]; of media (bool [B, T]) only the former."""
    heard = hidden + jnp.where(media[..., None], 0, embeddings).astype(hidden.dtype)
    return nnx.merge(graphdef, params)(heard, positions, valid, cache)[1]


@functools.partial(jax.jit, static_argnames=("graphdef", "config", "slots"), donate_argnames="cache")
def begin(graphdef, config: TalkerConfig, params, cache, voice, positions, resume, done, limits, seeds,
          slots: int) -> tuple[KVCache, SpeechState]:
    """After the prompt: feeds in the voice's first token (its embedding [B, E]) with the mark of padding, and sets out
    to draw codes. positions int32 [B, 2]: rotary ids of that token and of the first code's step; done bool [B]: replies
    of one token, which are not spoken."""
    talker = nnx.merge(graphdef, params)
    B = done.shape[0]
    pad, start = config.tts_codec_pad_token_id, config.tts_codec_start_token_id
    x = (voice + talker.embed(jnp.full(B, pad)))[:, None]
    _, cache = talker(x, jnp.broadcast_to(positions[None, :, :1], (3, B, 1)), ~done[:, None], cache)
    # The reference's repetition penalty also sees the ids that stand for the prompt there.
    dummies = jnp.array([config.tts_codec_mask_token_id, pad, start])
    seen = constrain(jnp.zeros((B, config.vocab_size), bool).at[:, dummies].set(True), "batch", None)
    codes = DecodeState(jnp.full(B, start, jnp.int32), jnp.zeros((B, config.vocab_size), jnp.float32),
                        positions[:, 1], jnp.zeros((B, slots), jnp.int32), jnp.zeros((), jnp.int32), done, limits,
                        seen, seeds)
    return cache, SpeechState(codes, jnp.zeros(B, bool), resume)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="caches")
def speak(plan: Plan, params: dict, settings: Settings, caches: tuple[KVCache, KVCache], text: DecodeState,
          speech: SpeechState, limit) -> tuple[tuple[KVCache, KVCache], DecodeState, SpeechState]:
    """Both networks until `limit` (int32 []) codes have been drawn, or all rows are spoken; then the Thinker may still
    have something to say (steps.decode). params: {"thinker", "talker"}; caches in this order."""
    thinker, talker = nnx.merge(plan.thinker, params["thinker"]), nnx.merge(plan.talker, params["talker"])
    tell = functools.partial(_tell, plan, talker, settings)

    def together(carry):
        (text_cache, code_cache), text, speech = carry
        ended = text.done
        vector, text_cache, text = steps.think(thinker, plan.thinker_config, plan.text_sampler, settings.text_numbers,
                                               settings.text_ends, text_cache, text)
        code_cache, speech = tell(vector, ended, code_cache, speech)
        return (text_cache, code_cache), text, speech

    def alone(carry):
        code_cache, speech = carry
        return tell(settings.text_pad[None], jnp.ones_like(speech.told), code_cache, speech)

    def unspoken(speech):
        return (speech.codes.count < limit) & ~speech.codes.done.all()

    caches, text, speech = jax.lax.while_loop(lambda carry: ~carry[1].done.all() & unspoken(carry[2]), together,
                                              (caches, text, speech))
    code_cache, speech = jax.lax.while_loop(lambda carry: text.done.all() & unspoken(carry[1]), alone,
                                            (caches[1], speech))
    return (caches[0], code_cache), steps.settled(text), speech._replace(codes=steps.settled(speech.codes))


def _tell(plan: Plan, talker: Talker, settings: Settings, vector, ended, cache,
          speech: SpeechState) -> tuple[KVCache, SpeechState]:
    """One Talker step: vector [B or 1, E] of the rows whose text has not ended (bool [B])."""
    last = jnp.where(speech.told[:, None], settings.text_pad, settings.text_end)
    vector = jnp.where(ended[:, None], last, vector)
    codes, config = speech.codes, plan.talker_config
    positions = jnp.broadcast_to(codes.position[None, :, None], (3, codes.position.shape[0], 1))
    x = vector[:, None] + talker.embed(codes.token[:, None])
    hidden, cache = talker(x, positions, ~codes.done[:, None], cache)
    codes = codes._replace(position=jnp.maximum(codes.position + 1, speech.resume))
    codes = steps.draw(plan.code_sampler, settings.code_numbers, codes, talker.logits(hidden[:, 0]),
                       settings.code_ends, config.tts_codec_pad_token_id, FIRST_DRAW, settings.never)
    return cache, speech._replace(codes=codes, told=speech.told | ended)
