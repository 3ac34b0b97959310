"""What cloned policies share: chunks of actions in closed loop, and their imitation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import Hindsight, SegmentDraw, SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning import averaged
from jdp.learning.averaged import Averaged
from jdp.learning.guides import Past, history_of, no_past, observe
from jdp.learning.observations import observation_affine
from jdp.policies import actions, relabelled
from jdp.policies.actions import ActorConfig
from jdp.types import (
    Bound,
    Coordinates,
    Decision,
    Denoiser,
    Guide,
    Learner,
    Method,
    Metrics,
    Params,
    Policy,
    PyTree,
    Segments,
    Spec,
    where_rows,
)

S = TypeVar("S", bound=Any)


@dataclass(frozen=True)
class Chunked:
    """Of chunks of actions the first ones are executed before the next chunk is made."""

    history: int = 1
    """Observations that the policy sees: the last ones."""
    chunk: int = 1
    """Actions that are predicted, from the present one on."""
    execute: int = 1
    """Actions that are executed before the next prediction."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_settings(name, history=(self.history, 1, 1 << 20), execute=(self.execute, 1, self.chunk))

    def offsets(self) -> tuple[int, ...]:
        """The history ends at the row of the chunk's first action, the present, from which goals are ahead.

        In front of an episode its first row is repeated, as `start` does.
        """
        return tuple(range(1 - self.history, self.chunk))

    def encode(self, chunk: Array) -> Array:
        """What is diffused of chunks of actions `[B, T, A]`, of their shape: they themselves."""
        return chunk

    def decode(self, x0: Array) -> Array:
        """The inverse of `encode`."""
        return x0


@dataclass(frozen=True)
class ChunkConfig(Chunked, ActorConfig):
    """A diffusion of chunks of actions."""

    def __post_init__(self) -> None:
        ActorConfig.__post_init__(self)
        Chunked.__post_init__(self)

    def units(self, standardise: Affine, spec: Spec) -> Coordinates:
        """What a guide is told of the units of what is diffused."""
        return actions.coordinates(standardise, self, spec)


@dataclass(frozen=True)
class LongChunkConfig(ChunkConfig):
    """Diffusion policy's sizes, which later papers took over: 16 actions are predicted, 8 executed."""

    chunk: int = 16
    """Actions that are predicted, from the present one on."""
    execute: int = 8
    """Actions that are executed before the next prediction."""
    features: int = 512
    """Width of the denoiser."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampling_steps: int = 10
    """Steps of the sampler."""


class CloneState(NamedTuple):
    """The denoiser of chunks with its averaged weights."""

    actor: Averaged
    standardise: Affine  # of observations, [O]


class ChunkCarry(NamedTuple):
    """What B environments remember."""

    past: Past  # of the episode; its history is as long as the policy or its guide asks for
    queue: Array  # [B, K, A], the last chunk's first K actions, the next one to execute first
    left: Array  # [B] int32, how many of them are not executed yet


def condition(standardise: Affine, observations: Array, goal: Array, spec: Spec) -> Array:
    """`[B, (H - 1) O + O + G]`, of the observations `[B, H, O]` and the goal `[B, G]`."""
    before = standardise(observations[:, :-1]).reshape(observations.shape[0], -1)
    now = relabelled.condition(standardise, observations[:, -1], goal, spec)
    return jnp.concatenate([before, now], axis=-1)


def example(batch: Segments, standardise: Affine, config: Chunked, spec: Spec) -> tuple[Array, Array]:
    """What the policy sees `[B, C]` and the chunk to imitate `[B, chunk * A]`, encoded."""
    h = config.history
    seen = condition(standardise, batch.observation[:, :h], batch.goal, spec)
    chunk = config.encode(batch.action[:, h - 1 : h - 1 + config.chunk])
    return seen, chunk.reshape(chunk.shape[0], -1)


def init(key: Array, rows: SegmentRows, *, config: ChunkConfig, spec: Spec, extra: int = 0) -> CloneState:
    """A state whose network sees `extra` entries beside `condition`; `key` is consumed."""
    seen = jnp.zeros((1, config.history * spec.observation_dim + len(spec.goal) + extra))
    return begin(key, rows, seen, observation_affine(rows.observation), config=config, spec=spec)


def begin(
    key: Array, rows: SegmentRows, shown: PyTree, standardise: Affine, *, config: ChunkConfig, spec: Spec
) -> CloneState:
    """A state whose network is shown a pytree as `shown`, of one row; `key` is consumed."""
    check_fits(rows.observation, rows.action, spec, "policy")
    x = jnp.zeros((1, config.chunk * spec.action_dim))
    params = config.network().init(key, x, jnp.zeros(1), shown)
    return CloneState(averaged.begin(config.optimiser(), params), standardise)


def imitate(state: S, loss: Callable[[Params], Array], config: ChunkConfig) -> tuple[S, Metrics]:
    """One step on the scalar `loss(params)`, of a `CloneState` or what has an `actor` as it does."""

    def with_metrics(params: Params) -> tuple[Array, Metrics]:
        value = loss(params)
        return value, {"loss": value}

    actor, metrics = averaged.descend(config.optimiser(), state.actor, with_metrics, config.ema)
    return state._replace(actor=actor), metrics


def start(
    observation: Array,
    *,
    config: Chunked,
    spec: Spec,
    guide: Guide | None = None,
    kept: int | None = None,
) -> ChunkCarry:
    """An episode's first observation `[B, O]`, repeated; nothing to execute yet.

    Of each chunk its first `kept` actions are remembered; None: those that are executed.
    """
    batch = observation.shape[0]
    past = no_past(observation, max(config.history, history_of(guide)))
    queue = jnp.zeros((batch, kept or config.execute, spec.action_dim))
    return ChunkCarry(past, queue, jnp.zeros(batch, jnp.int32))


def step(
    carry: ChunkCarry,
    observation: Array,
    sample: Callable[[Past], Array],
    execute: int | None = None,
) -> tuple[ChunkCarry, Decision]:
    """The next action `[B, A]` of each row's chunk, or the first of a new one where all were executed.

    `sample(past) -> [B, chunk, A]`, or flat, runs only where any row needs it: one branch of a `lax.cond`,
    for all rows at once. (Under `vmap` both branches would run.) `execute` actions of a chunk are executed;
    None: all that are remembered.
    """
    return telling_step(carry, observation, lambda past: (sample(past), ()), execute)[:2]


def telling_step(
    carry: ChunkCarry,
    observation: Array,
    sample: Callable[[Past], tuple[Array, PyTree]],
    execute: int | None = None,
) -> tuple[ChunkCarry, Decision, PyTree]:
    """`step` of a `sample(past) -> (chunks, told)`, and what is told of the new chunks.

    Leaves of it are `[B, ...]`, 0 in the rows that go on with their chunk.
    """
    past = observe(carry.past, observation)
    batch, kept, dim = carry.queue.shape
    due = carry.left == 0

    def renew() -> tuple[Array, PyTree]:
        chunk, told = sample(past)
        chunk = chunk.reshape(batch, -1, dim)[:, :kept]
        return jnp.where(due[:, None, None], chunk, carry.queue), told

    def keep() -> tuple[Array, PyTree]:
        told = jax.eval_shape(lambda: sample(past)[1])
        return carry.queue, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), told)

    queue, told = jax.lax.cond(jnp.any(due), renew, keep)
    told = where_rows(due, told, jax.tree.map(jnp.zeros_like, told))
    left = jnp.where(due, execute or kept, carry.left) - 1
    return ChunkCarry(past, jnp.roll(queue, -1, axis=1), left), Decision(queue[:, 0], due), told


@dataclass(frozen=True)
class Chunks:
    """How a policy draws its chunks, but for the weights: what wrappers of trained policies build on.

    A `state` is a `CloneState`, or has an `actor` and `standardise` as it does.
    """

    denoiser: Callable[[Params, Any], Denoiser]  # of weights and what is shown [B, ...]; hashable
    config: ChunkConfig
    spec: Spec
    guide: Guide | None = None

    def shown(self, state: Any, past: Past, goal: Array) -> Any:
        """`[B, C]`, or a pytree: what the network is shown of what was seen."""
        return condition(state.standardise, past.history[:, -self.config.history :], goal, self.spec)

    def steered(self, state: Any, past: Past, goal: Array, shown: Any = None) -> Denoiser:
        """The denoiser of chunks `[B, chunk * A]` at what was seen, as the guide takes it.

        `shown`: what the network is shown, where that is not `shown` of what was seen.
        """
        shown = self.shown(state, past, goal) if shown is None else shown
        scale = self.config.units(state.standardise, self.spec)
        return actions.steered(self.denoiser(state.actor.ema, shown), self.guide, past, goal, scale)

    def draw(self, key: Array, denoiser: Denoiser, rows: int) -> Array:
        """`[rows, chunk * A]` out of noise; the key is consumed."""
        return self.config.sampling().draw(key, denoiser, (rows, self.config.chunk * self.spec.action_dim))

    def decoded(self, x0: Array) -> Array:
        """`[B, chunk, A]`, the actions of what was drawn, `[B, chunk * A]`."""
        return self.config.decode(x0.reshape(x0.shape[0], self.config.chunk, self.spec.action_dim))

    def policy(
        self, act: Callable[..., tuple[PyTree, Decision]], kept: int | None = None, **more: Any
    ) -> Policy:
        """The policy of the module-level function `act`, to which `parts`, all this, and `more` are bound."""
        acting = (("config", self.config), ("spec", self.spec), ("guide", self.guide), ("kept", kept))
        return Policy(Bound(start, acting), Bound(act, (("parts", self), *sorted(more.items()))))


def act(
    key: Array, state: CloneState, carry: ChunkCarry, observation: Array, goal: Array, *, parts: Chunks
) -> tuple[ChunkCarry, Decision]:
    """A step of the policy that draws each chunk out of noise."""

    def sample(past: Past) -> Array:
        x0 = parts.draw(key, parts.steered(state, past, goal), observation.shape[0])
        return parts.decoded(x0)

    return step(carry, observation, sample)


def clone_learner(
    init_: Callable[..., PyTree],
    update: Callable[..., tuple[PyTree, Metrics]],
    config: Chunked,
    spec: Spec,
) -> Learner:
    """What imitates chunks, with `config` and `spec` bound: goals are later rows of the episode."""
    settings = (("config", config), ("spec", spec))
    draw = SegmentDraw(config.offsets(), spec.goal, Hindsight(later=1.0))
    return Learner(Bound(init_, settings), Bound(update, settings), draw)


def chunk_method(
    init_: Callable[..., PyTree],
    update: Callable[..., tuple[PyTree, Metrics]],
    denoiser: Callable[[Params, Array], Denoiser],
    config: ChunkConfig,
    spec: Spec,
    guide: Guide | None,
    act: Callable[..., tuple[ChunkCarry, Decision]] = act,
) -> Method:
    """A method of cloned chunks made of two module-level functions, with `config` and `spec` bound.

    Args:
        denoiser: of weights and conditions `[B, C]`, hashable; the policy acts by it.
        guide: steers the chunk when it is drawn.
        act: a step of the policy, a module-level function as `act` is.
    """
    learner = clone_learner(init_, update, config, spec)
    return Method(learner, Chunks(denoiser, config, spec, guide).policy(act))
