"""The facade: `load` a checkpoint, then ask it. See the README for ten lines that work."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax import sharding
from omni_jax.config import OmniConfig, read_json_object
from omni_jax.data.batch import Prompt, collate
from omni_jax.data.processor import Processor
from omni_jax.data.tokenizer import StreamDecoder
from omni_jax.errors import OmniError
from omni_jax.inference import generate as generation
from omni_jax.inference import steps
from omni_jax.inference.generate import Session
from omni_jax.inference.networks import Network, abstract_networks
from omni_jax.inference.sampling import Sampling, row_seeds, whole_number
from omni_jax.weights import load_params

Conversation = Sequence[dict[str, Any]]
GENERATION_CONFIG = "generation_config.json"


@dataclasses.dataclass(frozen=True)
class Reply:
    """An answer. token_ids leave out the end token; timings are in seconds."""

    text: str
    token_ids: list[int]
    timings: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TextChunk:
    """A piece of streamed text and the tokens that it took."""

    text: str
    token_ids: list[int]


def load(path: str | os.PathLike, mesh: Any = None, dtype: Any = None, progress: bool = False) -> "Omni":
    """Loads a Hugging Face directory or one written by `tools/convert.py`.

    mesh: "data=1,fsdp=1,model=4" or a jax Mesh; None is `sharding.default_mesh`. dtype: of weights and activations;
    None is bfloat16 on accelerators and float32 on a CPU. Raises OmniError before any weight is read if the
    checkpoint is incomplete or contradicts its config.json.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise OmniError(f"{directory}: is not a directory; give a checkpoint's directory")
    _keep_compiled_programs()
    dtype = _dtype(dtype)
    config = OmniConfig.load(directory)
    kv_heads = config.thinker_config.text_config.num_key_value_heads
    mesh = sharding.default_mesh(kv_heads) if mesh is None else sharding.make_mesh(mesh)
    processor = Processor.load(directory, config)
    settings = _generation_config(directory)
    ends, sampling = _ends(settings, config, directory), _default_sampling(settings, directory)
    networks = abstract_networks(config, mesh, dtype, names=["thinker"])
    params = load_params(directory, config, {name: tree for name, (_, tree) in networks.items()}, progress=progress)
    thinker = Network(config.thinker_config, networks["thinker"][0], params["thinker"], mesh, ends)
    return Omni(config, thinker, processor, sampling)


class Omni:
    """A loaded checkpoint. All methods take conversations as in Qwen's own examples and raise OmniError."""

    def __init__(self, config: OmniConfig, network: Network, processor: Processor, sampling: Sampling):
        self.config, self.network, self.processor, self.sampling = config, network, processor, sampling

    def generate(self, conversation: Conversation | Sequence[Conversation], *, use_audio_in_video: bool = False,
                 fps_for_positions: str = "true", max_new_tokens: int = 1024, temperature: float | None = None,
                 top_p: float | None = None, top_k: int | None = None, repetition_penalty: float | None = None,
                 seed: int | Sequence[int] = 0) -> Reply | list[Reply]:
        """The reply to a conversation, or the replies to a list of conversations (one batch).

        Sampling settings left out are those of generation_config.json, else greedy. seed: one for all rows or one a
        row; a row's draws depend on its seed alone. fps_for_positions "nominal" gives videos the reference's 2 fps in
        TMRoPE instead of their true sampled rate.
        """
        started = time.perf_counter()
        single = not _is_batch(conversation)
        conversations = [conversation] if single else conversation
        sampling = self.sampling_with(temperature, top_p, top_k, repetition_penalty)
        limit, seeds = self.reply_limit(max_new_tokens), row_seeds(seed, len(conversations))
        prompts = [self.prompt(each, use_audio_in_video, fps_for_positions) for each in conversations]
        session = self.begin(prompts, sampling, limit, seeds, started)
        replies = self.finish(session, started)
        return replies[0] if single else replies

    def stream(self, conversation: Conversation, *, use_audio_in_video: bool = False,
               fps_for_positions: str = "true", max_new_tokens: int = 1024, temperature: float | None = None,
               top_p: float | None = None, top_k: int | None = None, repetition_penalty: float | None = None,
               seed: int = 0) -> Iterator[TextChunk]:
        """The same reply as `generate`'s, in pieces as they are ready; never half a character. The prompt is read
        before this returns, so that errors come here and not at the first piece."""
        started = time.perf_counter()
        sampling = self.sampling_with(temperature, top_p, top_k, repetition_penalty)
        limit, seeds = self.reply_limit(max_new_tokens), row_seeds(seed, 1)
        prompt = self.prompt(conversation, use_audio_in_video, fps_for_positions)
        return self.text_chunks(self.begin([prompt], sampling, limit, seeds, started))

    def thinker_logits(self, conversation: Conversation, use_audio_in_video: bool = False, last: int | None = None,
                       fps_for_positions: str = "true") -> np.ndarray:
        """float32 [T, V]: the logits after each token of the prompt, or after its `last` tokens."""
        prompt = self.prompt(conversation, use_audio_in_video, fps_for_positions)
        return self.prompt_logits(prompt, last)

    def position_ids(self, conversation: Conversation, use_audio_in_video: bool = False,
                     fps_for_positions: str = "true") -> np.ndarray:
        """int32 [3, T]: the TMRoPE ids (time, height, width) of the prompt."""
        prompt = self.prompt(conversation, use_audio_in_video, fps_for_positions)
        ids, _ = generation.positions(self.network, collate([prompt], self.config))
        return np.asarray(ids)[:, 0, : len(prompt.token_ids)]

    def prompt(self, conversation: Conversation, use_audio_in_video: bool = False,
               fps_for_positions: str = "true") -> Prompt:
        """The conversation as tokens and features. Raises OmniError if it leaves no room for a reply."""
        return self.processor.prompt(conversation, use_audio_in_video, fps_for_positions, max_new_tokens=1)

    def prompt_logits(self, prompt: Prompt, last: int | None = None) -> np.ndarray:
        """float32 [T, V] of a prepared prompt; see `thinker_logits`."""
        T = len(prompt.token_ids)
        first = 0 if last is None else max(0, T - whole_number("last", last, 1))
        rows: list[np.ndarray] = []

        def keep(offset: int, hidden: jax.Array) -> None:
            if offset + hidden.shape[1] > first and offset < T:
                scores = np.asarray(steps.logits(self.network.graphdef, self.network.params, hidden))[0]
                rows.append(scores[max(0, first - offset): T - offset])

        generation.read(self.network, collate([prompt], self.config), keep)
        return np.concatenate(rows)

    def reply_limit(self, max_new_tokens: Any) -> int:
        """The longest reply that is asked for, at most the context. Raises OmniError."""
        context = self.config.thinker_config.text_config.max_position_embeddings
        return min(whole_number("max_new_tokens", max_new_tokens, 1), context)

    def sampling_with(self, temperature, top_p, top_k, repetition_penalty) -> Sampling:
        """The default settings with those that are given."""
        given = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty}
        return dataclasses.replace(self.sampling, **{k: v for k, v in given.items() if v is not None})

    def begin(self, prompts: list[Prompt], sampling: Sampling, limit: int, seeds: np.ndarray, started: float,
              before: Session | None = None) -> Session:
        """Prefills a batch of prompts (after the turns of `before`) and draws the first token."""
        context = self.config.thinker_config.text_config.max_position_embeddings
        used = int(before.cache.used) if before else 0
        batch = collate(prompts, self.config)
        prepared = time.perf_counter() - started
        limits = np.minimum(limit, context - used - batch.lengths)
        session = generation.begin(self.network, batch, sampling, limits, seeds, before)
        session.timings |= {"prepare": prepared, "first_token": time.perf_counter() - started}
        return session

    def finish(self, session: Session, started: float) -> list[Reply]:
        """Decodes to the end."""
        generation.advance(self.network, session, session.limit)
        session.handed_out = session.limit
        replies = session.replies(self.network.ends)
        timings = {**session.timings, "total": time.perf_counter() - started}
        return [Reply(self.processor.tokenizer.decode(tokens), tokens, timings) for tokens in replies]

    def text_chunks(self, session: Session) -> Iterator[TextChunk]:
        """Decodes the one row of a session step by step."""
        decoder = StreamDecoder(self.processor.tokenizer)
        held: list[int] = []
        for (token,) in generation.stream(self.network, session):
            if token in self.network.ends:
                break
            held.append(token)
            if text := decoder.push([token]):
                yield TextChunk(text, held)
                held = []
        if (text := decoder.flush()) or held:
            yield TextChunk(text, held)

    def chat(self, **options: Any) -> Any:
        """A conversation that keeps what it has read: see `Chat`. `options` are those of `generate`."""
        from omni_jax.inference.chat import Chat

        return Chat(self, **options)


def _is_batch(conversation: Any) -> bool:
    """Whether this is a list of conversations. What is neither is for the prompt's checks to name."""
    return isinstance(conversation, Sequence) and len(conversation) > 0 and isinstance(conversation[0], (list, tuple))


def _dtype(name: Any) -> np.dtype:
    if name is None:
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    try:
        dtype = jnp.dtype(name)
    except (TypeError, ValueError):
        dtype = None
    if dtype not in (jnp.bfloat16, jnp.float16, jnp.float32):
        raise OmniError(f"dtype {name!r} is not one of bfloat16, float16, float32")
    return dtype


def _keep_compiled_programs() -> None:
    """XLA's programs are kept on disk, unless the user has said where or said no."""
    if jax.config.jax_compilation_cache_dir is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:  # a user without a home, as in containers: nothing is kept
            return
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "omni_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _generation_config(directory: Path) -> dict[str, Any]:
    path = directory / GENERATION_CONFIG
    return read_json_object(path, "mend or remove it") if path.exists() else {}


def _ends(settings: dict[str, Any], config: OmniConfig, directory: Path) -> tuple[int, ...]:
    """The tokens that end a reply: those of generation_config.json, else that of config.json."""
    given, size = settings.get("eos_token_id"), config.thinker_config.text_config.vocab_size
    if given is None:
        return (config.thinker_config.eos_token_id,)
    ends = given if isinstance(given, list) else [given]
    where = f"{directory / GENERATION_CONFIG}: eos_token_id"
    if not ends:
        raise OmniError(f"{where} is an empty list; name at least one token id")
    return tuple(whole_number(where, token, 0, size - 1) for token in ends)


def _default_sampling(settings: dict[str, Any], directory: Path) -> Sampling:
    """What generation_config.json says; greedy unless it says do_sample."""
    path, draws = directory / GENERATION_CONFIG, settings.get("do_sample") or False
    if not isinstance(draws, bool):
        raise OmniError(f"{path}: do_sample is {draws!r}; it must be true or false")
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    given = {name: settings[name] for name in names if settings.get(name) is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OmniError(f"{path}: {name} is {value!r}; it must be a number")
    used = {"temperature": 1.0, **given} if draws else {k: v for k, v in given.items() if k == "repetition_penalty"}
    try:
        return Sampling(**used)
    except OmniError as error:
        raise OmniError(f"{path}: {error}") from None
