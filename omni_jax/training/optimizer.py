"""AdamW over a flat dict {path: array}, with a schedule, parts that learn at their own rates, and clipping."""

import fnmatch

import jax
import optax

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
    """Clipping by the global norm, Adam in float32, decoupled weight decay, rates, schedule."""
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    chain += [optax.scale_by_adam(config.b1, config.b2, config.eps)]
    if config.weight_decay:
        chain += [optax.add_decayed_weights(config.weight_decay, mask=lambda params: {p: decays(p) for p in params})]
    if config.rates:
        chain += [optax.stateless(lambda updates, _: {p: rate(config, p) * u for p, u in updates.items()})]
    return optax.chain(*chain, optax.scale_by_learning_rate(schedule(config, steps)))


def decays(path: str) -> bool:
    """Whether weight decay pulls at a parameter: matrices and tables, not norms' scales and biases."""
    return path.rsplit("/", 1)[-1] not in ("scale", "bias", "alpha", "beta")


def rate(config: OptimizerConfig, path: str) -> float:
    """The factor on the learning rate of one parameter."""
    return next((factor for pattern, factor in config.rates if fnmatch.fnmatchcase(path, pattern)), 1.0)


def state_shardings(optimizer: optax.GradientTransformation, params: dict, replicated: jax.sharding.Sharding):
    """The shardings of `optimizer.init(params)`: moments as their parameters (abstract), all else on every device."""
    abstract = jax.eval_shape(optimizer.init, params)
    shardings = {path: leaf.sharding for path, leaf in params.items()}
    return optax.tree.map_params(optimizer, lambda _, sharding: sharding, abstract, shardings,
                                 transform_non_params=lambda _: replicated)
