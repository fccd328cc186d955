"""Loading a checkpoint: everything is checked before any weight is read."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig, read_json_object
from omni_jax.data.processor import Processor
from omni_jax.errors import OmniError, require
from omni_jax.inference.networks import Network, abstract_networks
from omni_jax.inference.omni import Omni
from omni_jax.inference.sampling import Sampling, whole_number
from omni_jax.inference.token2wav import prepare
from omni_jax.inference.voices import Voices
from omni_jax.weights import find_speakers, load_params

GENERATION_CONFIG = "generation_config.json"
ASSETS = Path(__file__).parents[1] / "assets"


def load(path: str | os.PathLike, mesh: Any = None, dtype: Any = None, speech: bool = True,
         progress: bool = False) -> Omni:
    """Loads a Hugging Face directory, one written by `tools/convert.py`, or "omni-tiny", which comes with the package.

    mesh: "data=1,fsdp=1,model=4" or a jax Mesh; None is `sharding.default_mesh`. dtype: of weights and activations;
    None is bfloat16 on accelerators and float32 on a CPU (Token2Wav is float32 always). speech: False leaves the
    speaking networks unread. Raises OmniError before any weight is read if the checkpoint is incomplete or contradicts
    its config.json.
    """
    directory, dtype = checkpoint_directory(path), _dtype(dtype)
    config = OmniConfig.load(directory)
    mesh = _mesh(config, mesh)
    processor = Processor.load(directory, config)
    settings = _generation_config(directory)
    ends, sampling = _ends(settings, config, directory), _default_sampling(settings, directory)
    silent = _why_silent(config, directory, speech)
    speakers = {} if silent else find_speakers(directory)
    networks = abstract_networks(config, mesh, dtype, names=["thinker"] if silent else None)
    params = load_params(directory, config, {name: tree for name, (_, tree) in networks.items()}, progress=progress)
    thinker = Network(config.thinker_config, networks["thinker"][0], params["thinker"], mesh, ends)
    voices = silent or _voices(config, networks, params, mesh, speakers, directory)
    return Omni(config, thinker, processor, sampling, voices)


def load_voices(path: str | os.PathLike, mesh: Any = None, progress: bool = False) -> Voices:
    """Token2Wav and the speakers alone, to speak codes that are given; all else stays unread. Otherwise as `load`."""
    directory = checkpoint_directory(path)
    config = OmniConfig.load(directory)
    require(config.token2wav_config is not None, str(directory), "has no Token2Wav; give a whole checkpoint")
    mesh, speakers = _mesh(config, mesh), find_speakers(directory)
    graphdef, abstract = abstract_networks(config, mesh, jnp.float32, names=["token2wav"])["token2wav"]
    params = load_params(directory, config, {"token2wav": abstract}, progress=progress)["token2wav"]
    return Voices(config, None, prepare(config.token2wav_config, graphdef, params, mesh), speakers, directory)


def checkpoint_directory(path: str | os.PathLike) -> Path:
    """A checkpoint's, which is about to be loaded; of a directory and a bundled model of one name, the directory.
    Raises OmniError."""
    directory = Path(path)
    if not directory.exists() and directory.name == os.fspath(path) and (ASSETS / directory / "config.json").is_file():
        directory = ASSETS / directory
    require(directory.is_dir(), str(directory), "is not a directory; give a checkpoint's directory, or omni-tiny")
    keep_compiled_programs()
    return directory


def _mesh(config: OmniConfig, mesh: Any) -> Mesh:
    kv_heads = config.thinker_config.text_config.num_key_value_heads
    return sharding.default_mesh(kv_heads) if mesh is None else sharding.make_mesh(mesh)


def _why_silent(config: OmniConfig, directory: Path, speech: bool) -> str | None:
    """Why a checkpoint is loaded without speech, or None."""
    if not speech:
        return "the checkpoint was loaded with speech=False; load it with speech=True"
    if config.talker_config is None or config.token2wav_config is None:
        return (f"{directory}: has no Talker and Token2Wav, or sets enable_audio_output to false in config.json; give "
                "a whole checkpoint, or return_audio=False")
    return None


def _voices(config: OmniConfig, networks: dict, params: dict, mesh: Mesh, speakers: dict, directory: Path) -> Voices:
    talker = config.talker_config
    ends = (talker.tts_codec_pad_token_id, talker.tts_codec_end_token_id)
    network = Network(talker, networks["talker"][0], params["talker"], mesh, ends)
    token2wav = prepare(config.token2wav_config, networks["token2wav"][0], params["token2wav"], mesh)
    return Voices(config, network, token2wav, speakers, directory)


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


def keep_compiled_programs() -> None:
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
