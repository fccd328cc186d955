"""From a configuration to a run that is ready to start: everything is checked before any weight is read."""

import dataclasses
import sys
from pathlib import Path

import jax
from jax.sharding import Mesh

from omni_jax import sharding
from omni_jax.config import OmniConfig
from omni_jax.data.processor import Processor
from omni_jax.errors import OmniError
from omni_jax.inference.loading import keep_compiled_programs
from omni_jax.training import lora, objectives
from omni_jax.training.config import TrainConfig
from omni_jax.training.networks import COPIES, apart, load_added, training_networks
from omni_jax.training.optimizer import make_optimizer
from omni_jax.training.parts import learning, split, typed
from omni_jax.training.step import Params, Plan, TrainState, first_state, state_of
from omni_jax.weights import load_params, match, read_tensors
from omni_jax.weights.foreign import Foreign, find_foreign, overlay
from omni_jax.weights.names import leaves, nest

AbstractParams = dict[str, jax.ShapeDtypeStruct]  # by path


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run's static plan, its mesh, its processor, and its parameters as they will be laid out. `abstract`: the state;
    `frozen`: what does not learn; `foreign`: what other models give to start from, if any do."""

    plan: Plan
    mesh: Mesh
    processor: Processor
    abstract: TrainState
    shardings: TrainState
    frozen: AbstractParams
    foreign: Foreign | None

    @property
    def rows(self) -> int:
        """Rows of a micro-batch over all devices."""
        return self.plan.run.batch_size // self.plan.run.accumulate


def prepare(run: TrainConfig) -> Setup:
    """Checks a run's configuration against its checkpoint. Raises OmniError."""
    directory = Path(run.model)
    if not directory.is_dir():
        raise OmniError(f"model: {directory} is not a directory; give a checkpoint's directory")
    keep_compiled_programs()
    config = OmniConfig.load(directory)
    processor = Processor.load(directory, config)
    mesh = _mesh(run)
    plan, params, frozen = plan_of(run, config, mesh)
    return Setup(plan, mesh, processor, *state_of(plan, params), frozen, _foreign(run, config))


def plan_of(run: TrainConfig, config: OmniConfig, mesh: Mesh) -> tuple[Plan, AbstractParams, AbstractParams]:
    """(the static plan, what learns, what is frozen) of a run on a mesh. Raises OmniError."""
    objective = objectives.find(run.objective)
    if "token2wav" not in objective.networks or config.token2wav_config is not None:
        objective.check(config, run)
    networks = training_networks(config, run, mesh, objective.networks)
    if missing := set(objective.networks) - networks.keys():
        raise OmniError(f"{run.model}: has no {' and no '.join(sorted(missing))}; objective {run.objective!r} needs it")
    if run.lora:
        networks = lora.adapted(networks, run.lora, mesh)
    abstract = {name: tree for name, (_, tree) in networks.items()}
    learns = learning((path for path, _ in leaves(abstract)), ("*/lora/*",) if run.lora else run.train)
    if copied := sorted(path for path in learns if path.split("/")[0] in COPIES):
        raise OmniError(f"train: {copied[0]} is the copy that learning is measured by, and stays as it is")
    if still := sorted(set(objective.learns) - learns):
        raise OmniError(f"train: {still[0]} must learn with objective {run.objective!r}; add it")
    params, frozen = split(typed(abstract, learns, run.dtype), learns)
    learning(params, [pattern for pattern, _ in run.optimizer.rates], "optimizer.rates")
    learning(params, run.optimizer.muon, "optimizer.muon")
    graphdefs = {name: graphdef for name, (graphdef, _) in networks.items()}
    return Plan(run, config, graphdefs, objective, make_optimizer(run.optimizer, run.steps)), params, frozen


def load(setup: Setup, progress: bool = False) -> tuple[TrainState, Params]:
    """(the state before the first step, the frozen parameters), from the run's checkpoint and other models."""
    params, frozen = load_params_of(setup, progress)
    return first_state(setup.plan, params, setup.shardings), frozen


def load_params_of(setup: Setup, progress: bool = False) -> tuple[Params, Params]:
    """(what learns, what is frozen) as the run begins with them."""
    run, learnt = setup.plan.run, setup.abstract.params
    own, added = apart(lora.without({**learnt, **setup.frozen}))
    found = dict(leaves(load_params(run.model, setup.plan.config, nest(own), progress)))
    found |= load_added(added, setup.plan, found)
    if setup.foreign:
        overlay(found, setup.foreign)
        for note in setup.foreign.notes if progress and jax.process_index() == 0 else ():
            print(f"note: {note}", file=sys.stderr)
    return split({**found, **lora.fresh(learnt, run.seed)}, set(learnt))


def load_frozen(setup: Setup, progress: bool = False) -> Params:
    """The frozen parameters alone, for a run that goes on from its own checkpoint."""
    return load_params_of(setup, progress)[1] if setup.frozen else {}


def _foreign(run: TrainConfig, config: OmniConfig) -> Foreign | None:
    if not any(run.parts.values()):
        return None
    return find_foreign(config, run.parts, match(read_tensors(run.model, config), config, run.model))


def _mesh(run: TrainConfig) -> Mesh:
    return sharding.training_mesh() if run.mesh is None else sharding.make_mesh(run.mesh)
