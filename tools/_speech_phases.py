"""The jitted steps of speech at full size, as those of text in _phases.py."""

from typing import Any

import jax
import jax.numpy as jnp

from omni_jax.data.buckets import PREFILL_CHUNK, bucket
from omni_jax.inference import lockstep, token2wav
from omni_jax.inference.replies import Options
from omni_jax.inference.sampling import Sampling
from omni_jax.inference.schedule import CONTEXT, SCHEDULE
from omni_jax.models import dit
from tools import _phases
from tools._phases import DTYPE, Model, Step

LATER = len(SCHEDULE.sizes) - 1  # the first of the chunks that have the schedule's last size
PHASES = {
    "hear-8k": f"{PREFILL_CHUNK} tokens of a prompt through the Talker, cache of 8,192 slots",
    "talk-8k": "one Talker step alone, cache of 8,192 slots",
    "speak-8k": "one turn of the lock-step, Thinker and Talker, caches of 8,192 slots",
    "solve-first": f"the DiT's {dit.EVALUATIONS} evaluations for the first {SCHEDULE.size(0)} blocks of sound",
    "solve-later": f"the same for {SCHEDULE.size(LATER)} blocks, as from chunk {LATER + 1} on",
    "vocode-first": f"BigVGAN on the first {SCHEDULE.size(0)} blocks",
    "vocode-later": f"BigVGAN on {SCHEDULE.size(LATER)} blocks",
}


def step(model: Model, phase: str, chunk: int = PREFILL_CHUNK, batch: int = 1) -> Step:
    """The step of one of PHASES, of a model that speaks."""
    kind, _, size = phase.partition("-")
    if kind == "solve":
        return solve(model, 0 if size == "first" else LATER, batch)
    if kind == "vocode":
        return vocode(model, 0 if size == "first" else LATER, batch)
    slots = int(size.removesuffix("k")) * 1024
    if kind == "hear":
        return hear(model, slots, chunk, batch)
    return speak(model, (slots, slots), batch, (0, 1) if kind == "talk" else (1, 0))


def hear(model: Model, slots: int, chunk: int, batch: int) -> Step:
    """A chunk of the prompt through the Talker."""
    graphdef, params = model.networks["talker"]
    store = _phases.cache(model, "talker", slots, batch)
    vectors = model.array((batch, chunk, model.config.talker_config.embedding_size), DTYPE)
    flags = model.array((batch, chunk), bool)
    args = (graphdef, params, store, vectors, vectors, flags, model.array((3, batch, chunk), jnp.int32), flags)
    return Step(lockstep.hear, args, (params["proj"], params["decoder"]), (store.keys, store.values),
                per_prompt=slots // chunk)


def begin(model: Model, slots: int, batch: int) -> Step:
    """The Talker's first step, which feeds in the voice."""
    (graphdef, params), config = model.networks["talker"], model.config.talker_config
    store, rows = _phases.cache(model, "talker", slots, batch), lambda dtype: model.array((batch,), dtype)
    args = _phases.arguments(
        lockstep.begin, graphdef=graphdef, config=config, params=params, cache=store,
        voice=model.array((batch, config.embedding_size), DTYPE), positions=model.array((batch, 2), jnp.int32),
        resume=rows(jnp.int32), done=rows(bool), limits=rows(jnp.int32), seeds=rows(jnp.uint32),
        slots=bucket(Options().talker_max_new_tokens))
    return Step(lockstep.begin, args, (params["proj"], params["decoder"]), (store.keys, store.values))


def speak(model: Model, slots: tuple[int, int], batch: int, turns: tuple[int, int]) -> Step:
    """A call of the lock-step with caches of so many slots (Thinker's, Talker's). `turns`: of its loops, that of both
    networks and that of the Talker alone. Text is greedy, codes are drawn as they are by default."""
    text, codes = Sampling(), Options().spoken
    (thinker, _), (talker, talking), config = model.thinker, model.networks["talker"], model.config
    plan = lockstep.Plan(thinker, talker, config.thinker_config, config.talker_config, text.sampler, codes.sampler)
    mark = model.array((config.talker_config.embedding_size,), DTYPE)
    numbers, ends = model.array((3,), jnp.float32), model.array((2,), jnp.int32)
    settings = lockstep.Settings(numbers, numbers, ends, ends, model.array((config.talker_config.vocab_size,), bool),
                                 mark, mark)
    stores = tuple(_phases.cache(model, name, n, batch) for name, n in zip(("thinker", "talker"), slots, strict=True))
    first = begin(model, slots[1], batch)
    speech = _phases.results(first.function, *first.args)[1]
    args = (plan, {name: model.params[name] for name in ("thinker", "talker")}, settings, stores,
            _phases.decode_state(model, slots[0], batch, text), speech, model.array((), jnp.int32))
    weights = [talking["proj"], talking["decoder"], talking["codec_head"]]
    if turns[0]:
        weights += [model.thinker[1]["decoder"], _phases.head(model)]
    read = [(store.keys, store.values) for store in stores[0 if turns[0] else 1:]]
    return Step(lockstep.speak, args, weights, read, turns=turns, passes=sum(turns))


def solve(model: Model, chunk: int, batch: int) -> Step:
    """The mel of a chunk and its look-ahead."""
    (graphdef, params), config = model.networks["token2wav"], model.config.token2wav_config
    blocks, rows = SCHEDULE.solved(chunk), lambda dtype: model.array((batch,), dtype)
    args = _phases.arguments(
        token2wav._solve, graphdef=graphdef, params=params,
        table=_phases.results(token2wav._modulations, graphdef, params, dit.STEPS),
        voices=model.array((batch, 2, config.dit_config.hidden_size), jnp.float32),
        codes=model.array((batch, blocks, config.codes_per_block), jnp.int32), noise=None, seeds=rows(jnp.uint32),
        first=model.array((), jnp.int32), frames=rows(jnp.int32), current=model.array((), jnp.int32),
        kept=_state(model, batch).kept)
    layers = jax.tree_util.tree_leaves_with_path(params["dit"]["layers"])
    read = [leaf for path, leaf in layers if "modulation" not in str(path)]  # these are in the table
    return Step(token2wav._solve, args, read, passes=dit.EVALUATIONS)


def vocode(model: Model, chunk: int, batch: int) -> Step:
    """The sound of a chunk."""
    (graphdef, params), config = model.networks["token2wav"], model.config.token2wav_config.dit_config
    frames = SCHEDULE.size(chunk) * config.block_size
    args = (graphdef, params, _state(model, batch).tail, model.array((batch, frames, config.mel_dim), jnp.float32),
            model.array((), jnp.int32), model.array((batch,), jnp.int32), chunk == 0)
    return Step(token2wav._vocode, args, params["bigvgan"])


def first_samples(model: Model) -> int:
    """Samples of the first chunk that leave at once."""
    config = model.config.token2wav_config
    frames = SCHEDULE.size(0) * config.dit_config.block_size - CONTEXT
    return frames * config.bigvgan_config.samples_per_frame


def _state(model: Model, batch: int) -> Any:
    return _phases.results(token2wav._empty, *model.networks["token2wav"], batch, dit.STEPS)
