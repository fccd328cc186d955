"""What a run minimises: each objective is a pure function from networks and a batch to sums over what it weighs.

The step divides the sums by the summed weights of all its micro-batches, so that accumulating equals one large batch
(but for `contrast`, which compares the examples of a micro-batch).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from omni_jax.config import OmniConfig
from omni_jax.errors import OmniError, require
from omni_jax.inference.codec import TABLE
from omni_jax.models.talker import Talker
from omni_jax.models.thinker import Thinker, insert
from omni_jax.models.tmrope import position_ids
from omni_jax.sharding import constrain
from omni_jax.training import adversarial, voice
from omni_jax.training.batch import SpokenBatch, TalkerRows, TrainBatch
from omni_jax.training.codebook import Kept, first_memory, keep_codebook
from omni_jax.training.config import TrainConfig
from omni_jax.training.losses import TokenLosses, token_losses
from omni_jax.training.preference import preference_loss

Sums = dict[str, jax.Array]
FAR = 1 << 20  # above any rotary id
NEWLINE = 198  # in Qwen's table of byte-level tokens, and whatever begins as it does


@dataclasses.dataclass(frozen=True)
class Objective:
    """networks: the roots of the parameter tree that it needs. sums(models, config, run, batch): float32 [] each, of
    which "loss" is minimised and "weight" divides them all; arrays named "seen" are kept apart. form: what lines of a
    manifest become (see `training.forms.form_of`). check(config, run) raises OmniError for settings that it cannot
    run with; learns: paths that must learn. memory(config): arrays that are kept between steps. settle(kept, seen,
    step, run): what is kept after a step's update, and more metrics; `seen`: of all micro-batches, [A, …]."""

    networks: tuple[str, ...]
    sums: Callable[[dict[str, Any], OmniConfig, TrainConfig, Any], dict[str, Any]]
    form: str = "text"
    check: Callable[[OmniConfig, TrainConfig], None] = lambda config, run: None
    learns: tuple[str, ...] = ()
    memory: Callable[[OmniConfig], dict[str, jax.Array]] = lambda config: {}
    settle: Callable[..., tuple[Kept, Sums]] = lambda kept, seen, step, run: (kept, {})


def text(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """Cross-entropy (nats) of what the assistant says, with PaLM's z-loss (arXiv 2204.02311, section 5)."""
    thinker = models["thinker"]
    hidden, _ = thinker_hidden(thinker, config, run, batch)
    targets, weights = shifted(batch)
    return _cross_entropy(token_losses(thinker.head, hidden, targets).sums(weights), run, weights)


def contrast(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """CLIP's cross-entropy (nats; arXiv 2103.00020, section 2.3) of which answer of the micro-batch belongs to which
    media, and the other way round. It teaches encoders without weights what things are called, before a Thinker can
    attend to them.

    Media and an answer fit by the sum of the answer's tokens' logits, which the Thinker's head gives to nothing but the
    mean of what the encoders make of the media. Answers of the same tokens are one answer."""
    thinker, tokens, (B, T) = models["thinker"], batch.token_ids, batch.token_ids.shape
    most = T // 8 + 1  # conversations of a row, from 1: the chat template alone takes more tokens
    number = (jnp.arange(B)[:, None] * most + batch.segments).reshape(-1)
    summed = lambda values, at: jnp.zeros((B * most, *values.shape[1:]), values.dtype).at[at].add(values, mode="drop")
    total, count = 0, 0
    for vectors, destination in _media(thinker, run, batch):
        at = number.at[destination.reshape(-1)].get(mode="fill", fill_value=B * most)  # padding: dropped
        total += summed(vectors.reshape(-1, vectors.shape[-1]).astype(jnp.float32), at)
        count += summed(jnp.ones(at.shape), at)
    learnt = (batch.weights > 0).reshape(-1)
    said = jnp.where(learnt[:, None], thinker.head.weight[tokens.reshape(-1)], 0)
    seen = thinker.decoder.norm((total / jnp.maximum(count, 1)[:, None]).astype(said.dtype))
    scores = jnp.matmul(seen, summed(said, number).T, preferred_element_type=jnp.float32)
    # An answer's key: a sum of its tokens' hashes, which wraps around.
    mixed = tokens.reshape(-1).astype(jnp.uint32) * jnp.uint32(2654435761)
    key = summed(jnp.where(learnt, mixed ^ (mixed >> 15), 0), number)
    given = (count > 0) & (summed(learnt.astype(jnp.float32), number) > 0)
    among = given[:, None] & given
    same = among & (key[:, None] == key)
    of = lambda where, axis: jax.nn.logsumexp(scores, axis=axis, where=where)
    losses = sum(of(among, axis) - of(same, axis) for axis in (0, 1)) / 2
    right = jnp.take_along_axis(same, jnp.where(among, scores, -jnp.inf).argmax(1)[:, None], 1)[:, 0]
    picked = lambda values: jnp.where(given, values, 0).sum()
    return {"loss": picked(losses), "accuracy": picked(right.astype(jnp.float32)), "weight": picked(1.0)}


def ctc(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """Connectionist temporal classification (nats a token of the answer; Graves et al. 2006): the answer's tokens, in
    their order, stand in what the encoders make of the sound, one after another with blanks between. It teaches an
    audio encoder without weights what is said and when, before a Thinker can attend to it.

    The Thinker's head reads the encoder's vectors and nothing else; blank is the token of padding. One conversation a
    row (DataConfig.pack). Rows whose answer has more tokens than the sound do not count. accuracy: of the best path,
    the share of tokens in answers that are right as a whole."""
    blank, head = config.thinker_config.pad_token_id, models["thinker"].head
    vectors, heard, said, written = _heard_and_said(models, config, run, batch)
    logits = head(vectors).astype(jnp.float32)
    repeats = ((said[:, 1:] == said[:, :-1]) & written[:, 1:]).sum(1)
    count = written.sum(1)
    fits = (count > 0) & (count + repeats <= heard.sum(1))
    # optax keeps the state at padding wherever it stands, so that the text around a sound may stay in the row.
    losses = optax.ctc_loss(logits, ~heard | ~fits[:, None], said, ~written, blank_id=blank)
    best = jnp.where(heard, logits.argmax(-1), blank)
    changes = best != jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=blank)
    read, readable = _moved_to_the_left(best, changes & (best != blank))
    right = jnp.where(readable | written, (read == said) & (readable == written), True).all(1)
    counted = jnp.where(fits, count, 0).astype(jnp.float32)
    return {"loss": jnp.where(fits, losses, 0).sum(), "accuracy": (right * counted).sum(), "weight": counted.sum()}


def frames(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """Cross-entropy (nats) of each of a sound's vectors with the answer's token of the same number, as the Thinker's
    head reads it off: for speech whose phones are known in time. What is too long of either does not count. One
    conversation a row. An audio encoder learns what sounds like what from it in a few hundred steps."""
    vectors, heard, said, written = _heard_and_said(models, config, run, batch)
    number = jnp.maximum(jnp.cumsum(heard, axis=1) - 1, 0)
    weights = (heard & jnp.take_along_axis(written, number, 1)).astype(jnp.float32)
    targets = jnp.take_along_axis(said, number, 1)
    return _cross_entropy(token_losses(models["thinker"].head, vectors, targets).sums(weights), run, weights)


def cells(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: TrainBatch) -> Sums:
    """Kullback-Leibler divergence (nats) of what the Thinker's head reads off each vector of the media from the line of
    the answer with the same number: its tokens in equal shares, in any order. A vision encoder learns from it what each
    cell of a picture shows, and all of that at once, where a question asks for one thing.

    One conversation a row; vectors and lines count as far as there are both. certainty: the probability of a line's
    tokens together."""
    thinker, tokens, (B, T) = models["thinker"], batch.token_ids, batch.token_ids.shape
    vectors, at = zip(*[(v.reshape(-1, v.shape[-1]), d.reshape(-1)) for v, d in _media(thinker, run, batch)],
                      strict=True)
    # Once a vector, not once a token of its line, as `token_losses` would: there are many more of these.
    log_shares = jax.nn.log_softmax(thinker.head(thinker.decoder.norm(jnp.concatenate(vectors))).astype(jnp.float32))
    at = jnp.concatenate(at)
    index = jnp.full(B * T, -1).at[at].set(jnp.arange(len(at)), mode="drop").reshape(B, T)
    index, _ = _moved_to_the_left(index, index >= 0)  # the vectors of each row, in the order of their tokens
    learnt = batch.weights > 0
    written = learnt & jnp.pad(learnt[:, 1:], ((0, 0), (0, 1)))  # without the mark that ends the answer
    breaks = written & (tokens == NEWLINE)
    own = jnp.take_along_axis(index, jnp.minimum(jnp.cumsum(breaks, axis=1), T - 1), 1)
    told = written & ~breaks & (own >= 0)
    where = jnp.where(told, own, len(at)).reshape(-1)
    summed = lambda values: jnp.zeros(len(at)).at[where].add(values.reshape(-1), mode="drop")
    said = log_shares[jnp.maximum(own, 0), tokens]
    count = summed(jnp.ones((B, T)))
    exist = count > 0
    divergences = jnp.where(exist, -summed(said) / jnp.maximum(count, 1) - jnp.log(jnp.maximum(count, 1)), 0)
    return {"loss": divergences.sum(), "certainty": summed(jnp.exp(said)).sum(),
            "weight": exist.sum().astype(jnp.float32)}


def _heard_and_said(models: dict[str, Any], config: OmniConfig, run: TrainConfig,
                    batch: TrainBatch) -> tuple[jax.Array, ...]:
    """What the encoders make of sounds, normed for the head, at its tokens [B, T, D], where these are [B, T], and the
    answer's tokens at each row's start [B, T], with where they are."""
    thinker, tokens = models["thinker"], batch.token_ids
    x = jnp.zeros((*tokens.shape, thinker.head.weight.shape[-1]), run.dtype)
    for vectors, destination in _media(thinker, run, batch):
        x = insert(x, vectors, destination)
    heard = tokens == config.thinker_config.audio_token_index
    return thinker.decoder.norm(x), heard, *_moved_to_the_left(tokens, batch.weights > 0)


def _one_a_row(config: OmniConfig, run: TrainConfig) -> None:
    require(not run.data.pack, f"objective {run.objective}", "wants one conversation a row; set data.pack=False")


def _one_a_row_with_media(config: OmniConfig, run: TrainConfig) -> None:
    _one_a_row(config, run)
    media = run.data.media
    require(bool(media.audio_blocks or media.frame_pairs), f"objective {run.objective}",
            "learns from media alone; give them room in data.media")


def _moved_to_the_left(values: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The kept values of each row [B, T] before all others, in their order, and where they are."""
    order = jnp.argsort(~kept, axis=1, stable=True)
    return jnp.take_along_axis(values, order, 1), jnp.take_along_axis(kept, order, 1)


def _cross_entropy(sums: TokenLosses, run: TrainConfig, weights: jax.Array) -> Sums:
    return {"loss": sums.loss + run.z_loss * sums.squared_normalizer, "cross_entropy": sums.loss,
            "accuracy": sums.right, "weight": weights.sum()}


def talker(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: SpokenBatch) -> Sums:
    """Cross-entropy (nats) of the next codec id over multimodal contexts (paper, section 4.3, stages 1 and 3); with
    run.speech.text_weight also of the text, where the Thinker learns too."""
    hidden, words = spoken_hidden(models, config, run, batch)
    losses = token_losses(models["talker"].codec_head, hidden, batch.speech.targets)
    sums = _cross_entropy(losses.sums(batch.speech.weights), run, batch.speech.weights)
    if not run.speech.text_weight:
        return sums
    targets, weights = shifted(batch.text)
    text_sums = token_losses(models["thinker"].head, words, targets).sums(weights)
    return sums | {"loss": sums["loss"] + run.speech.text_weight * text_sums.loss, "text_cross_entropy": text_sums.loss}


def preference(models: dict[str, Any], config: OmniConfig, run: TrainConfig, batch: SpokenBatch) -> Sums:
    """Direct preference optimization of the Talker over pairs of utterances (paper, section 4.3, stage 2)."""
    heard, positions, _ = _heard(models["thinker"], models["talker"], config, run, batch)
    speech = batch.speech

    def losses(model):
        hidden = model.packed(heard + _codes(model, speech), positions, speech.segments, run.remat)
        return token_losses(model.codec_head, hidden, speech.targets).loss * speech.weights

    summed = lambda values: _by_utterance(values, speech.segments)
    policy, reference = losses(models["talker"]), losses(models["reference"])
    # Code by code: of two sums over a whole utterance, hundreds of nats each, float32 would round the difference away.
    gains = summed(reference - policy)
    return preference_loss(-summed(policy), gains, summed(speech.weights)[:, ::2] > 0, run.speech.beta)


def _by_utterance(values: jax.Array, segments: jax.Array) -> jax.Array:
    """Sums [B, U] over each row's utterances, U even; an utterance has four steps or more."""
    most = 2 * -(-segments.shape[1] // 8) + 1
    return jax.vmap(lambda v, s: jax.ops.segment_sum(v, s, most))(values, segments)[:, 1:]


def spoken_hidden(models: dict[str, Any], config: OmniConfig, run: TrainConfig,
            batch: SpokenBatch) -> tuple[jax.Array, jax.Array]:
    """The Talker's final-norm hidden vectors [B, S, D], and the Thinker's [B, T, E]."""
    model = models["talker"]
    heard, positions, words = _heard(models["thinker"], model, config, run, batch)
    return model.packed(heard + _codes(model, batch.speech), positions, batch.speech.segments, run.remat), words


def _codes(model: Talker, rows: TalkerRows) -> jax.Array:
    return jnp.where(rows.code[..., None] >= 0, model.embed(jnp.maximum(rows.code, 0)), 0)


def _heard(thinker: Thinker, talker: Talker, config: OmniConfig, run: TrainConfig,
           batch: SpokenBatch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the Talker hears at each step, codes aside [B, S, E], its rotary ids [3, B, S], and the Thinker's hidden
    vectors [B, T, E]."""
    rows, tokens = batch.speech, batch.text.token_ids
    hidden, ids = thinker_hidden(thinker, config, run, batch.text)
    media = jnp.isin(tokens, jnp.array(config.thinker_config.media_token_ids))
    vectors = hidden + jnp.where(media[..., None], 0, thinker.embed(tokens))  # as inference.lockstep.hear
    at = lambda x, index: jnp.take_along_axis(x, jnp.maximum(index, 0).reshape(*index.shape, *[1] * (x.ndim - 2)), 1)
    heard = jnp.where(rows.source[..., None] >= 0, at(vectors, rows.source), 0)
    heard = heard + jnp.where(rows.text[..., None] >= 0, thinker.embed(jnp.maximum(rows.text, 0)), 0)
    # The greatest id so far of the same conversation: the later ones' maxima are kept apart by their numbers.
    apart = batch.text.segments * FAR
    greatest = jax.lax.cummax(ids.max(0) + apart, axis=1) - apart
    own = jnp.stack([at(axis, rows.place) for axis in ids])
    positions = jnp.where(rows.beyond > 0, at(greatest, rows.place) + rows.beyond, own)
    return constrain(heard, "batch", None, None), positions, hidden


def thinker_hidden(thinker: Thinker, config: OmniConfig, run: TrainConfig,
                   batch: TrainBatch) -> tuple[jax.Array, jax.Array]:
    """The Thinker's final-norm hidden vectors [B, T, D] of packed rows, and its rotary ids [3, B, T]."""
    x = constrain(thinker.embed(batch.token_ids), "batch", None, None)
    for vectors, destination in _media(thinker, run, batch):
        x = insert(x, vectors, destination)
    lengths = (batch.segments > 0).sum(-1)
    positions, _ = position_ids(config.thinker_config, batch.token_ids, lengths, batch.vision_grid,
                                batch.seconds_per_grid, jnp.zeros_like(lengths), batch.segments)
    x = thinker.decoder.packed(constrain(x, "batch", None, None), positions, batch.segments, remat=run.remat)
    return x, positions


def _media(thinker: Thinker, run: TrainConfig, batch: TrainBatch) -> list[tuple[jax.Array, jax.Array]]:
    """What the encoders make of each group of media [..., D], and its destinations [...]."""
    heard = [(thinker.audio(each.mel, each.frames, remat=run.remat), each.destination) for each in batch.audio]
    seen = [(thinker.vision(each.pixels, each.cells, remat=run.remat), each.destination) for each in batch.vision]
    return heard + seen


def shifted(batch: TrainBatch) -> tuple[jax.Array, jax.Array]:
    """(targets int32 [B, T], weights float32 [B, T]): the next token of the same conversation."""
    following = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
    same = following(batch.segments) == batch.segments
    return following(batch.token_ids), jnp.where(same, following(batch.weights), 0)


OBJECTIVES = {
    "text": Objective(("thinker",), text),
    "contrast": Objective(("thinker",), contrast),
    "ctc": Objective(("thinker",), ctc, check=_one_a_row),
    "frames": Objective(("thinker",), frames, check=_one_a_row),
    "cells": Objective(("thinker",), cells, check=_one_a_row_with_media),
    "talker": Objective(("thinker", "talker"), talker, "spoken"),
    "preference": Objective(("thinker", "talker", "reference"), preference, "pairs"),
    "codec": Objective(("token2wav", "codec_encoder", "speaker_encoder"), voice.codec, "clips", voice.check, (TABLE,),
                       lambda config: first_memory(config.token2wav_config.dit_config), keep_codebook),
    "encode": Objective(("token2wav", "codec_encoder", "speaker_encoder"), voice.codec, "clips", voice.check),
    "flow": Objective(("token2wav", "speaker_encoder"), voice.flow, "coded_clips", voice.check),
    "distill": Objective(("token2wav", "codec_encoder"), voice.distill, "coded_clips", voice.check),
    "vocoder": Objective(("token2wav", "discriminators"), adversarial.vocoder, "clips", adversarial.check),
}


def find(name: str) -> Objective:
    """The objective of that name. Raises OmniError."""
    if name not in OBJECTIVES:
        raise OmniError(f"objective {name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
