"""The train step: one pure, jitted function of state, frozen parameters and a batch of micro-batches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from omni_jax.config import OmniConfig
from omni_jax.training.codebook import Kept
from omni_jax.training.config import TrainConfig
from omni_jax.training.objectives import Objective
from omni_jax.training.optimizer import schedule, state_shardings
from omni_jax.weights.names import nest

Params = dict[str, jax.Array]  # by path, as in "thinker/decoder/norm/scale"


class TrainState(NamedTuple):
    """What learning changes. params: float32; averages: their exponential averages, if the run keeps them; memory:
    what the objective keeps between steps."""

    step: jax.Array  # int32 []: steps done
    params: Params
    optimizer: Any
    averages: Params
    memory: dict[str, jax.Array]

    @property
    def best(self) -> Params:
        """What to evaluate and to export."""
        return self.averages or self.params


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static half of a run: networks by name, what is minimised, and how."""

    run: TrainConfig
    config: OmniConfig
    graphdefs: dict[str, nnx.GraphDef]
    objective: Objective
    optimizer: optax.GradientTransformation

    def sums(self, params: Params, frozen: Params, batch: Any) -> dict[str, Any]:
        """The objective's sums over one micro-batch, computed in the run's dtype."""
        dtype = jnp.dtype(self.run.dtype)
        tree = nest({path: leaf.astype(dtype) for path, leaf in sorted({**frozen, **params}.items())})
        models = {name: nnx.merge(self.graphdefs[name], tree[name]) for name in self.objective.networks}
        return self.objective.sums(models, self.config, self.run, batch)


def state_of(plan: Plan, params: Params) -> tuple[TrainState, TrainState]:
    """(abstract state, its shardings) for abstract float32 parameters with shardings."""
    mesh = next(iter(params.values())).sharding.mesh
    replicated = NamedSharding(mesh, PartitionSpec())
    own = {path: leaf.sharding for path, leaf in params.items()}
    shapes = jax.eval_shape(functools.partial(_first, plan), params)
    shardings = TrainState(replicated, own, state_shardings(plan.optimizer, params, replicated),
                           own if shapes.averages else {}, dict.fromkeys(shapes.memory, replicated))
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, shardings), shardings


def first_state(plan: Plan, params: Params, shardings: TrainState) -> TrainState:
    """The state before the first step. `params` are used up."""
    return jax.jit(functools.partial(_first, plan), out_shardings=shardings, donate_argnums=0)(params)


def _first(plan: Plan, params: Params) -> TrainState:
    averages = jax.tree.map(jnp.copy, params) if plan.run.average else {}
    return TrainState(jnp.zeros((), jnp.int32), params, plan.optimizer.init(params), averages,
                      plan.objective.memory(plan.config))


def make_train_step(plan: Plan, shardings: TrainState) -> Callable:
    """step(state, frozen, batch [A, …]) -> (state, metrics float32 []): the gradient of loss / weight, both summed over
    the A micro-batches, and one update. The state is donated and comes back in the same layout."""

    def micro(params, frozen, batch):
        sums = plan.sums(params, frozen, batch)
        return sums["loss"], (_scalars(sums), sums.get("seen", {}))

    gradient = jax.grad(micro, has_aux=True)

    def laid(grads: Params) -> Params:
        return jax.tree.map(jax.lax.with_sharding_constraint, grads, shardings.params)

    def step(state: TrainState, frozen: Params, batch: Any):
        one = lambda batch: gradient(state.params, frozen, batch)
        if jax.tree.leaves(batch)[0].shape[0] == 1:
            grads, (sums, seen) = one(jax.tree.map(lambda x: x[0], batch))
            seen = jax.tree.map(lambda x: x[None], seen)
        else:
            grads, sums, seen = _accumulated(one, laid, batch)
        weight = jnp.maximum(sums["weight"], 1e-6)
        grads = jax.tree.map(lambda gradient: gradient / weight, laid(grads))
        updates, optimizer = plan.optimizer.update(grads, state.optimizer, state.params)
        metrics = {name: value / weight for name, value in sums.items() if name != "weight"}
        metrics |= {"weight": sums["weight"], "grad_norm": optax.global_norm(grads),
                    "learning_rate": schedule(plan.run.optimizer, plan.run.steps)(state.step)}
        params = optax.apply_updates(state.params, updates)
        averages = _averaged(state, params, plan.run.average) if state.averages else {}
        kept, told = plan.objective.settle(Kept(params, averages, state.memory), seen, state.step, plan.run)
        return TrainState(state.step + 1, kept.params, optimizer, kept.averages, kept.memory), metrics | told

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _scalars(sums: dict[str, Any]) -> dict[str, jax.Array]:
    return {name: value for name, value in sums.items() if name != "seen"}


def _averaged(state: TrainState, params: Params, most: float) -> Params:
    """Exponential averages over as many of the last steps as there are, up to 1 / (1 - most)."""
    done = state.step.astype(jnp.float32)
    decay = jnp.minimum(most, (1 + done) / (10 + done))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.averages, params)


def _accumulated(one: Callable, laid: Callable, batch: Any):
    """Gradients and sums of all micro-batches, added in float32 by a scan, each device holding its part (`laid`); and
    what was seen in each, [A, …]."""
    grads, (sums, _) = jax.eval_shape(one, jax.tree.map(lambda x: x[0], batch))
    grads, sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (grads, sums))

    def add(carry, part):
        grads, (sums, seen) = one(part)
        grads, sums = jax.tree.map(jnp.add, carry, (grads, sums))
        return (laid(grads), sums), seen

    (grads, sums), seen = jax.lax.scan(add, (laid(grads), sums), batch)
    return grads, sums, seen


def make_eval_step(plan: Plan) -> Callable:
    """sums(params, frozen, batch [A, …]) -> the objective's sums over all micro-batches."""

    def evaluate(params, frozen, batch):
        total = jax.lax.map(lambda part: _scalars(plan.sums(params, frozen, part)), batch)
        return jax.tree.map(lambda x: x.sum(0), total)

    return jax.jit(evaluate)
