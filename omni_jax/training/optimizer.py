"""AdamW over a flat dict {path: array}, with a schedule, parts that learn at their own rates, and clipping; or Muon for
its matrices."""

import fnmatch
import math

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from omni_jax.training.config import OptimizerConfig


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate at each step (from 0): a linear warm-up, then the schedule towards `end`."""
    peak, end = config.learning_rate, config.learning_rate * config.end
    rest = max(1, steps - config.warmup_steps)
    after = {"constant": optax.constant_schedule(peak),
             "linear": optax.linear_schedule(peak, end, rest),
             "cosine": optax.cosine_decay_schedule(peak, rest, config.end)}[config.schedule]
    if not config.warmup_steps:
        return after
    # The first step already learns: a warm-up from 0 would waste it.
    warm = lambda step: peak * (step + 1) / config.warmup_steps
    return optax.join_schedules([warm, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, Adam or Muon in float32, decoupled weight decay, rates, schedule."""
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    if config.muon:
        label = lambda path, leaf: "muon" if is_stepped_by_muon(config, path, leaf.shape) else "adam"
        chain += [optax.partition({"adam": adam, "muon": _muon(config)},
                                  lambda params: {path: label(path, leaf) for path, leaf in params.items()})]
    else:
        chain += [adam]
    if config.weight_decay:
        chain += [optax.add_decayed_weights(config.weight_decay, mask=lambda params: {p: decays(p) for p in params})]
    if config.rates:
        chain += [optax.stateless(lambda updates, _: {p: rate(config, p) * u for p, u in updates.items()})]
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule(config, steps)))


# Of Adam's steps: their root mean square, which Muon's are brought to (Moonlight, arXiv 2502.16982, section 2.2).
_ADAM_RMS = 0.2
_TABLES = ("embed", "lm_head", "codec_head", "codec_embed", "bos_eos")


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Momentum, of each matrix the nearest orthogonal one (Jordan et al., 2024, kellerjordan.github.io/posts/muon), as
    large as a step of Adam's, and `muon_rate`."""
    # Masked leaves, those that Adam steps, come as empty nodes, which have no shape.
    axes = lambda params: {path: matrix_axes(path, leaf.shape) if hasattr(leaf, "shape") else leaf
                           for path, leaf in params.items()}

    def scale(path, update):
        sizes = (math.prod(update.shape[axis] for axis in side) for side in matrix_axes(path, update.shape))
        return config.muon_rate * _ADAM_RMS * math.sqrt(max(sizes)) * update

    scaled = lambda updates, _: {path: scale(path, update) if hasattr(update, "shape") else update
                                 for path, update in updates.items()}
    return optax.chain(scale_by_muon(weight_dimension_numbers=axes), optax.stateless(scaled))


def matrix_axes(path: str, shape: tuple[int, ...]) -> MuonDimensionNumbers | None:
    """The axes of a linear map's inputs and outputs; None for what is none: vectors, convolutions, and tables, of whose
    rows a token reads or scores one. Layers that are stacked, along the first axis, are maps of their own."""
    *parents, leaf = path.split("/")
    if leaf != "weight" or parents[-1] in _TABLES:
        return None
    first = int("layers" in parents and not parents[parents.index("layers") + 1].isdecimal())
    if len(shape) - first < 2 or (not first and len(shape) > 2):
        return None
    return MuonDimensionNumbers((len(shape) - 1,), tuple(range(first, len(shape) - 1)))


def is_stepped_by_muon(config: OptimizerConfig, path: str, shape: tuple[int, ...]) -> bool:
    fits = any(fnmatch.fnmatchcase(path, pattern) for pattern in config.muon)
    return fits and matrix_axes(path, shape) is not None


def decays(path: str) -> bool:
    """Whether weight decay pulls at a parameter: matrices and tables, not norms' scales and biases."""
    return path.rsplit("/", 1)[-1] not in ("scale", "bias", "alpha", "beta")


def rate(config: OptimizerConfig, path: str) -> float:
    """The factor on the learning rate of one parameter."""
    return next((factor for pattern, factor in config.rates if fnmatch.fnmatchcase(path, pattern)), 1.0)


def state_shardings(optimizer: optax.GradientTransformation, params: dict, replicated: jax.sharding.Sharding):
    """The shardings of `optimizer.init(params)`: moments as their parameters (abstract), all else on every device."""
    def sharding(keys: tuple, _):
        names = (key.key for key in keys if isinstance(key, jax.tree_util.DictKey))
        return next((params[name].sharding for name in names if name in params), replicated)

    return jax.tree_util.tree_map_with_path(sharding, jax.eval_shape(optimizer.init, params))
