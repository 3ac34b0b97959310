"""MBDPO (Cheng et al. 2026, arXiv 2605.26282): plans by a Monte-Carlo score, which a network then learns.

The score is that of model-based diffusion (`jdp.diffusion.monte_carlo`). The paper learns a latent world
model, with a value at the end of a plan and an energy that keeps it near the data; here plans are in a
simulator, or in a world model that is given, and are longer instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.data.draws import TransitionDraw
from jdp.data.normalise import Affine
from jdp.diffusion import monte_carlo, schedules
from jdp.diffusion.denoiser import edm, edm_preconditioning
from jdp.errors import check_choices, check_settings
from jdp.learning import averaged
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.averaged import Averaged
from jdp.learning.observations import observation_affine
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.online.planning import (
    Dynamics,
    PlanningConfig,
    dynamics_of,
    planning_policy,
    returns,
    shifted,
    weigher,
)
from jdp.registry import Preset, register
from jdp.registry import Task as Named
from jdp.types import (
    Bound,
    Decision,
    Learner,
    Method,
    Metrics,
    Params,
    Policy,
    PyTree,
    Spec,
    Task,
    Transition,
    WorldModel,
    expand,
    named_keys,
)

SIGMA_DATA = 0.5  # standard deviation of actions within [-1, 1]


@dataclass(frozen=True)
class MBDPOConfig(PlanningConfig):
    """Settings of MBDPO; those of the search are the authors', but for the horizon."""

    acting: OffPolicyConfig = field(default_factory=lambda: OffPolicyConfig(warm_up=1_000))
    """Steps, buffer and updates of the network."""
    levels: int = 20
    """Steps of the search."""
    betas: tuple[float, float] = (1e-4, 1e-2)
    """Of the first and the last level, linear between: draws of the last one spread by .33."""
    network: VectorDiffusionConfig = field(default_factory=lambda: VectorDiffusionConfig(ema=0.99))
    """The score network; its sampler is the search."""
    distilled: int = 64
    """Observations of a minibatch whose score the network learns in an update."""
    distilled_samples: int = 64
    """Sequences that are drawn for each."""
    policy: Literal["search", "network"] = "search"
    """What is scored: the search, with the network's plan among its candidates, or the network alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_settings(
            "MBDPOConfig",
            levels=(self.levels, 1, 1000),
            distilled=(self.distilled, 1, self.acting.batch_size),
            distilled_samples=(self.distilled_samples, 2, 1_000_000),
        )

    def sigmas(self) -> Array:
        """`[levels]`, the largest first."""
        return schedules.ddpm_linear(self.levels, *self.betas)[:-1]


class MBDPOState(NamedTuple):
    """The score network, by what it standardises observations, and what plans are made in."""

    network: Averaged
    standardise: Affine  # [O]
    model: PyTree = ()  # the parameters of a world model; of a simulator none


def denoiser(params: Params, seen: Array, config: MBDPOConfig) -> Partial:
    """That of flat plans `[B, T * A]` at standardised observations `[B, O]`, as a network says."""
    return edm(conditioned(config.network.network().apply), (params, seen), sigma_data=SIGMA_DATA)


def _adam(config: MBDPOConfig) -> optax.GradientTransformation:
    return optax.adam(config.network.learning_rate)


def _init(key: Array, transitions: Transition, *, config: MBDPOConfig, spec: Spec) -> MBDPOState:
    plan, seen = jnp.zeros((1, config.horizon * spec.action_dim)), jnp.zeros((1, spec.observation_dim))
    params = config.network.network().init(key, plan, jnp.zeros(1), seen)
    return MBDPOState(averaged.begin(_adam(config), params), observation_affine(transitions.observation))


def monte_carlo_plans(
    key: Array,
    model: PyTree,
    observation: Array,
    x: Array,
    sigma: Array,
    *,
    samples: int,
    dynamics: Dynamics,
    config: MBDPOConfig,
) -> Array:
    """`[B, T, A]`, what the network learns: the mean plan given noisy ones `x` at levels `sigma` `[B]`.

    At observations `[B, O]` of a task without goals; the key is consumed.
    """

    def one(key: Array, observation: Array, x: Array, sigma: Array) -> Array:
        keys = named_keys(key, "draw", "model")

        def value(actions: Array) -> Array:
            none = jnp.zeros(0)
            return returns(keys["model"], dynamics, model, observation, none, actions, config.discount)

        options = {"samples": samples, "limit": 1.0}
        return monte_carlo.posterior_mean(keys["draw"], value, weigh, x, sigma, **options)

    # As large a share of the draws counts as in the search.
    elites = -(-config.elites * samples // config.samples)
    weigh = weigher(replace(config, samples=samples, elites=elites))
    return jax.vmap(one)(jax.random.split(key, len(x)), observation, x, sigma)


def _update(
    key: Array,
    state: MBDPOState,
    batch: Transition,
    *,
    dynamics: Dynamics,
    config: MBDPOConfig,
    spec: Spec,
) -> tuple[MBDPOState, Metrics]:
    """The network's error in what Monte Carlo says, of random plans at random levels, as EDM weighs it."""
    keys, rows = named_keys(key, "level", "plan", "draw"), config.distilled
    observation = batch.observation[:rows]
    sigma = jax.random.choice(keys["level"], config.sigmas(), (rows,))
    x = jax.random.normal(keys["plan"], (rows, config.horizon, spec.action_dim))
    # Every other row is near the network's own plan, where a search comes to. All are clipped, as means of
    # candidates are: beyond the box lies nothing that it meets.
    own = network_plans(state, observation, jnp.clip(x, -1.0, 1.0), config=config)[:, 0]
    mine = (jnp.arange(rows) % 2 == 0)[:, None, None]
    x = jnp.clip(jnp.where(mine, own + sigma[:, None, None] * x, x), -1.0, 1.0)
    options = {"samples": config.distilled_samples, "dynamics": dynamics, "config": config}
    wanted = monte_carlo_plans(keys["draw"], state.model, observation, x, sigma, **options)
    wanted, x, seen = wanted.reshape(rows, -1), x.reshape(rows, -1), state.standardise(observation)
    c_out = edm_preconditioning(SIGMA_DATA).scales(expand(sigma, x))[2]

    def loss(params: Params) -> tuple[Array, Metrics]:
        found = jnp.mean(jnp.square((denoiser(params, seen, config)(x, sigma) - wanted) / c_out))
        return found, {"loss": found}

    network, metrics = averaged.descend(_adam(config), state.network, loss, config.network.ema)
    return state._replace(network=network), metrics


def network_plans(state: MBDPOState, observation: Array, plan: Array, *, config: MBDPOConfig) -> Array:
    """`[B, 1, T, A]`, the network's plans at observations `[B, O]` from warm starts `[B, T, A]`; no draws."""
    own = denoiser(state.network.ema, state.standardise(observation), config)

    def body(x: Array, sigma: Array) -> tuple[Array, None]:
        return jnp.clip(own(x, jnp.broadcast_to(sigma, len(x))), -1.0, 1.0), None

    x, _ = jax.lax.scan(body, plan.reshape(len(plan), -1), config.sigmas())
    return x.reshape(plan.shape)[:, None]


def _act_by_network(
    key: Array, state: MBDPOState, carry: Array, observation: Array, goal: Array, *, config: MBDPOConfig
) -> tuple[Array, Decision]:
    del key, goal
    plan = network_plans(state, observation, shifted(carry), config=config)[:, 0]
    return plan, decided_anew(plan[:, 0])


def presets(task: Named) -> Mapping[str, Preset]:
    """The same for all tasks; a step of the environment costs a search and an update."""
    del task
    acting = OffPolicyConfig(capacity=20_000, warm_up=1_000, batch_size=128)
    config = MBDPOConfig(acting=acting, samples=128, elites=16)
    least = replace(acting, capacity=1_000, warm_up=100, batch_size=16)
    brief = {
        "samples": 64,
        "elites": 16,
        "horizon": 10,
        "levels": 5,
        "distilled": 16,
        "distilled_samples": 16,
    }
    network = replace(config.network, features=64, blocks=1)
    tiny = replace(config, **brief, acting=least, network=network)
    return {
        "smoke": Preset(tiny, updates=50, batch_size=0, seeds=2),
        "cpu": Preset(config, updates=2_000, batch_size=0, seeds=3),
        "paper": Preset(MBDPOConfig(), updates=100_000, batch_size=0, seeds=5),
    }


@register(
    "online",
    "mbdpo",
    MBDPOConfig,
    presets,
    title="MBDPO",
    paper="arXiv 2605.26282, on arXiv 2407.01573",
    idea="plans in the simulator itself (or a world model) by a Monte-Carlo score, which a network learns",
    departures="plans in the simulator, or a world model that is given, where the paper learns a latent one "
    "with a value at a plan's end and an energy that keeps it near the data: plans are longer instead",
)
@lru_cache
def mbdpo(
    config: MBDPOConfig, spec: Spec, *, task: Task | None = None, model: WorldModel | None = None
) -> Method:
    """MBDPO in the simulator `task`, or in `model`, whose state is then put into `MBDPOState.model`.

    Its `update` takes a minibatch of transitions, whose observations alone it uses. Equal arguments give the
    same method.

    Raises:
        UserError: unless it is given one of them; see `jdp.online.planning.dynamics_of`.
    """
    dynamics = dynamics_of("mbdpo", spec, task, model)
    settings = (("config", config), ("spec", spec))
    update = Bound(_update, (*settings, ("dynamics", dynamics)))
    learner = Learner(Bound(_init, settings), update, TransitionDraw(spec.observation_dim, spec.action_dim))
    propose = Bound(network_plans, (("config", config),))
    policy = planning_policy(dynamics, config, spec, propose=propose)
    behaviour = planning_policy(dynamics, config, spec, propose=propose, noise=config.exploration)
    if config.policy == "network":
        policy = Policy(policy.init, Bound(_act_by_network, (("config", config),)))
    return Method(learner, policy, behaviour)
