"""The words that all rooms of the house share: data tuples and function types; long, as a dictionary is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.distributions import ActionDistribution as ActionDistribution
from jdp.distributions import Normal as Normal
from jdp.distributions import TanhNormal as TanhNormal
from jdp.errors import UserError

PyTree = Any
AnyArray = Any  # a jax array, or a numpy array on the host
Params = PyTree
Metrics = Mapping[str, Array]
Json = dict[str, Any]  # an object as JSON holds it: a configuration, a line of metrics.jsonl, scores
Logged = Mapping[str, Any]  # what is logged of one step, by name: numbers, arrays, texts


class Transition(NamedTuple):
    """One environment step, or a batch of them with leading axes `[...]`; numpy on the host."""

    observation: AnyArray  # [..., O]
    action: AnyArray  # [..., A], within [-1, 1]
    reward: AnyArray  # [...]
    next_observation: AnyArray  # [..., O]
    terminal: AnyArray  # [...], 1.0 where the step ended the task (never for a time limit)
    next_action: AnyArray | None = None  # [..., A], what the episode did next; only where an agent asks


def pack(transition: Transition) -> Array:
    """`[..., 2 O + A + 2]`, `A` more with `next_action`: all in one array, so a batch is one gather."""
    observation, action, reward, next_observation, terminal, next_action = transition
    fields = [observation, action, reward[..., None], next_observation, terminal[..., None]]
    return jnp.concatenate(fields if next_action is None else [*fields, next_action], axis=-1)


def unpack(packed: Array, observation_dim: int, action_dim: int) -> Transition:
    """The inverse of `pack`; the width tells whether there is a `next_action`."""
    o, a = observation_dim, action_dim
    width = 2 * o + a + 2
    return Transition(
        observation=packed[..., :o],
        action=packed[..., o : o + a],
        reward=packed[..., o + a],
        next_observation=packed[..., o + a + 1 : 2 * o + a + 1],
        terminal=packed[..., 2 * o + a + 1],
        next_action=packed[..., width:] if packed.shape[-1] > width else None,
    )


@dataclass(frozen=True)
class Spec:
    """What a dataset says about its task."""

    observation_dim: int
    action_dim: int
    env_id: str | None = None  # Gymnasium task for evaluation, e.g. "Hopper-v5"
    max_episode_steps: int | None = None
    score_range: tuple[float, float] | None = None  # returns that mean 0 and 100
    goal: tuple[int, ...] = ()  # entries of the observation that a goal [G] prescribes; () without goals
    # Bounds [A] of the task's actions where they are not -1 and 1: everywhere else in jdp they are.
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    # Gymnasium's EnvSpec as JSON, where settings or wrappers make the task another than its id's.
    env_spec: str | None = None
    # Named parts of the observation and their entries, each in one part; () for those that the task is known
    # to have (jdp.tasks.groups).
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        named = sorted(entry for _, entries in self.groups for entry in entries)
        if self.groups and named != list(range(self.observation_dim)):
            told = ", ".join(f"{name}: {list(entries)}" for name, entries in self.groups)
            last = self.observation_dim - 1
            raise UserError(f"groups ({told}) must name each of the observation's entries 0 to {last} once")

    def task_actions(self, actions: AnyArray) -> AnyArray:
        """`[..., A]` within [-1, 1] in the units of the task, into whose box they are mapped."""
        half, middle = self._box(actions)
        return actions if half is None else actions * half + middle

    def unit_actions(self, actions: AnyArray) -> AnyArray:
        """The inverse of `task_actions`: `[..., A]` in the units of the task to [-1, 1]."""
        half, middle = self._box(actions)
        return actions if half is None else (actions - middle) / half

    def _box(self, actions: AnyArray) -> tuple[AnyArray | None, AnyArray]:
        """Half widths and middles of the box, shaped for `actions` `[..., A]`; (None, 0) for [-1, 1]."""
        if self.action_low is None or self.action_high is None:
            return None, 0.0
        shape = (1,) * (actions.ndim - 1) + (-1,)
        low, high = (np.array(x, np.float32).reshape(shape) for x in (self.action_low, self.action_high))
        return (high - low) / 2, (high + low) / 2


class Denoiser(Protocol):
    """`(x, sigma) -> x0_hat`, the posterior mean `E[x0 | x]` for `x = x0 + sigma * eps`.

    `x` is `[..., D]` or `[..., T, D]`; `sigma.shape` is a prefix of `x.shape`; entries at
    `sigma = 0` stay as they are. Every denoiser is a pytree (see `bind`), so it is passed to a
    jitted function as an argument, and new weights compile nothing.
    """

    def __call__(self, x: Array, sigma: Array) -> Array: ...


class TokenDenoiser(Protocol):
    """`(tokens, level) -> logits`: of every masked token the distribution `p(x0_i | tokens)`.

    Tokens are `[..., L]` int32 from 0 to V - 1, and V where they are masked; `level` `[...]` is the share of
    them that is; logits are `[..., L, V]`, of which only those of masked tokens mean anything.
    """

    def __call__(self, tokens: Array, level: Array) -> Array: ...


class Network(NamedTuple):
    """A module system behind two functions; nothing else knows which system it is."""

    init: Callable[..., Params]  # init(key, x [B, T, D], c_noise [B] or [B, T])
    apply: Callable[..., Array]  # apply(params, x, c_noise) -> [B, T, D]


class Segments(NamedTuple):
    """Rows of B episodes at fixed offsets from a drawn row, in units of the task (`jdp.data.segments`)."""

    observation: Array  # [B, L, O]
    action: Array  # [B, L, A]
    reward: Array  # [B, L]
    terminal: Array  # [B, L], 1.0 from the step that ended the task on
    value: Array  # [B, L], discounted return from that row to the end of the episode
    goal: Array  # [B, G], in hindsight; G = 0 where the task has no goals
    distance: Array  # [B] int32, steps from row 0 to the goal; FAR for a goal of another episode


class Plan(NamedTuple):
    """What a planner intends in each of B environments, in the units of the task."""

    observation: Array  # [B, H, O], every `stride` steps; row 0 is the present
    action: Array  # [B, H, A], planned actions; [B, 0, A] where the planner plans states only
    value: Array  # [B], the planner's own estimate; 0 where it has none
    subgoal: Array  # [B, K, O], of hierarchical planners; [B, 0, O] of others


class Decision(NamedTuple):
    """What a policy decides in B environments, and what the method shows or learns from."""

    action: Array  # [B, A], within [-1, 1]
    decided: Array  # [B] bool, whether this step drew anew; False where it follows an earlier plan or chunk
    plan: Plan | None = None  # of planners, the plan that is followed
    value: Array | None = None  # [B], the method's own estimate of what follows
    chain: Array | None = None  # [n + 1, B, ...], the denoising chain that made it
    log_prob: Mapping[str, Array] | None = None  # [B], one for each level of a hierarchy, by its name
    steps: Array | None = None  # [B] int32, network calls of this decision, where they vary by themselves
    latent: Array | None = None  # [B, L] within [-1, 1], what made the action; buffers keep it in its place
    intended: Array | None = None  # [B, A], where a filter has changed it, what the policy would have done
    violation: Array | None = None  # [B], by how much a filter's rules are broken all the same; 0: not at all


class Draw(Protocol):
    """A kind of batch: which rows of a dataset an update sees. Hashable; equal draws compare equal.

    It is cut into halves, `locate` and `take`, so that the rows may lie on the devices or in files.
    """

    def prepare(self, episodes: Any) -> PyTree:
        """The rows that batches are drawn from, numpy, of `jdp.data.Episodes`."""
        ...

    def view(self, rows: PyTree) -> PyTree:
        """The rows as `Learner.init` sees them: all of them at once."""
        ...

    def tables(self, rows: PyTree) -> PyTree:
        """What `locate` needs of the rows: a few numbers for each place where a batch may begin."""
        ...

    def locate(self, key: Array, tables: PyTree, batch_size: int) -> PyTree:
        """Where the rows of one batch lie, leaves `[B, ...]`; the key is consumed."""
        ...

    def take(self, rows: PyTree, located: PyTree) -> PyTree:
        """The batch: indexing alone, of numpy or jax arrays."""
        ...


class Init(Protocol):
    """How training begins."""

    def __call__(self, key: Array, data: PyTree, /) -> PyTree:
        """The state; statistics, graphs and anchors come from `data`, a `Draw.view`. The key is consumed."""
        ...


class Update(Protocol):
    """One step of training."""

    def __call__(self, key: Array, state: PyTree, batch: PyTree, /) -> tuple[PyTree, Metrics]:
        """`(new state, metrics [])`; the key is consumed."""
        ...


class Learner(NamedTuple):
    """Whatever learns, as pure functions. Many seeds are one `vmap` of them over a leading axis `[S]`."""

    init: Init
    update: Update
    draws: Draw | Mapping[str, Draw]  # data and batches have its structure: one of each, or named ones


class PolicyInit(Protocol):
    """What a policy remembers when an episode begins."""

    def __call__(self, observation: Array, /) -> PyTree:
        """The carry for observations `[B, O]`; all its leaves are `[B, ...]`: loops reset single rows."""
        ...


class Act(Protocol):
    """One step of a policy in B environments."""

    def __call__(
        self, key: Array, state: PyTree, carry: PyTree, observation: Array, goal: Array, /
    ) -> tuple[PyTree, Decision]:
        """`(carry, decision)` for observations `[B, O]` and goals `[B, G]`; the key is consumed."""
        ...


class Coordinates(Protocol):
    """What a method draws, in the units of the task: planners have a `Scale`, policies an `ActionScale`."""

    @property
    def observation(self) -> Any: ...  # Affine, [O]
    @property
    def action(self) -> Any: ...  # Affine, [A]
    @property
    def sigma_data(self) -> float: ...  # standard deviation of what is drawn

    def rows(self, x: Array, present: Array, /) -> tuple[Array, Array]:
        """Observations `[B, T, O]` and actions `[B, T, A]` of `x` drawn at observations `[B, O]`."""
        ...


class Context(NamedTuple):
    """What a guide may know when a plan or an action is drawn, for B environments.

    Before H observations were seen the first of them stands in the place of those before it: row `h` of the
    history was seen where `h >= H - 1 - elapsed`.
    """

    scale: Coordinates  # whose inverses give units of the task
    observation: Array  # [B, O], the present, in the units of the task
    goal: Array  # [B, G]
    elapsed: Array  # [B] int32, steps since the episode began
    history: Array  # [B, H, O], the last observations, the present one last; H is what the guide asks for


class Guide(Protocol):
    """A user's way to steer what a method draws: `guide(context)` takes its denoiser to another one.

    Planners' denoisers are of plans `[B, T, D]` in the coordinates of `context.scale`, policies' of chunks of
    actions `[B, T, A]` within [-1, 1] (T = 1 where they draw one). A guide is hashable; one with a field
    `history` sees that many observations.
    """

    def __call__(self, context: Context, /) -> Callable[[Denoiser], Denoiser]: ...


class Filter(Protocol):
    """A user's last word on an action: `filter(context, action [B, A]) -> action [B, A]`, within [-1, 1].

    Or `(action, violation [B])`, where it can say by how much its own rules are broken all the same, in units
    of actions. A filter is hashable; one with a field `history` sees that many observations.
    """

    def __call__(self, context: Context, action: Array, /) -> Array | tuple[Array, Array]: ...


class Policy(NamedTuple):
    """Whatever acts, in B environments at once; what it remembers lives in `carry`."""

    init: PolicyInit
    act: Act


class Target(Protocol):
    """The distribution of a policy's actions: what guidance and world models ask for."""

    def __call__(self, state: PyTree, observation: Array, /) -> ActionDistribution:
        """Over actions `[..., A]` at observations `[..., O]` in the units of the task."""
        ...


class WorldModel(NamedTuple):
    """A learned simulator as pure functions, in the units of the task.

    What an episode remembers lives in `carry`, which begins with the last `history` observations and
    the actions between them (an episode's first observation, repeated with actions 0, where there are
    fewer). Every row of a batch is an episode of its own.
    """

    learner: Learner
    start: Callable[[Array, Array], PyTree]  # start(observations [B, H, O], actions [B, H - 1, A]) -> carry
    step: Callable[[Array, PyTree, PyTree, Array], tuple[PyTree, Array, Array, Array]]
    # step(key, state, carry, action [B, A]) -> (carry, next observation [B, O], reward [B], terminal [B])
    history: int = 1  # H
    predict: Callable[[PyTree, Array, Array], Normal] | None = None
    # of ensembles: predict(state, observation [B, O], action [B, A]) -> Normal of [E, B, O + 1]:
    # every elite member's next observation and reward


class Imagination(NamedTuple):
    """How a model-based method uses a world model: it learns from rollouts beside the data."""

    model: WorldModel  # what rollouts step: the given model, made pessimistic
    calibrate: Callable[[PyTree, Transition], PyTree]
    # calibrate(state of the given model, the dataset) -> state of `model`


class Imagine(Protocol):
    """Plans of a self-improving method, and which of them pass its test."""

    def __call__(
        self, key: Array, state: PyTree, observation: Array, goal: Array, /
    ) -> tuple[Segments, Array]:
        """`(segments [B, L, ...], keep [B] bool)` from observations `[B, O]` to goals `[B, G]`."""
        ...


class Method(NamedTuple):
    """An agent, a diffusion policy, a planner, a fine-tuner: what learns, and what acts with it."""

    learner: Learner
    policy: Policy  # how it is evaluated
    behaviour: Policy | None = None  # how it explores; None: as `policy`
    target: Target | None = None
    imagination: Imagination | None = None  # of model-based methods
    imagine: Imagine | None = None  # of methods that learn from their own plans
    warm_up: Policy | None = None  # how it fills a buffer before its first update; None: at random


class Stepped(NamedTuple):
    """What a step of a `Task` leads to."""

    observation: Array  # [O], of the state reached, BEFORE any reset: what a time limit cuts is bootstrapped
    reward: Array  # []
    terminal: Array  # [] bool, whether the task ended here (never for a time limit)
    success: Array  # [] bool, whether the goal is reached now; False in tasks without goals


class Task(NamedTuple):
    """A simulator of ONE environment as pure functions, in the manner of brax and gymnax; loops `vmap` it.

    Hashable; equal tasks compare equal. The time limit is `spec.max_episode_steps`, which loops count.
    """

    reset: Callable[[Array], tuple[PyTree, Array, Array]]
    # reset(key) -> (state, observation [O], goal [G]); the key is consumed, the goal stays for the episode
    step: Callable[[Array, PyTree, Array], tuple[PyTree, Stepped]]
    # step(key, state, action [A] within [-1, 1]) -> (state, what it led to); the key is consumed
    spec: Spec
    state_of: Callable[[Array, Array], PyTree] | None = None
    # state_of(observation [O], goal [G]) -> a state that is observed so: what a plan can start from; None
    # where observations do not tell the state


class Rollout(NamedTuple):
    """T steps of N environments under one policy, in order; numpy on the host.

    An episode may begin and end in the middle. `next_observation` is of the state reached, before any
    reset: where a step was `truncated` it is what a value is bootstrapped from, and where it was `terminal`
    nothing is.
    """

    observation: AnyArray  # [T, N, O], what was acted on
    goal: AnyArray  # [T, N, G]
    decision: Decision  # [T, N, ...], with what the method learns from
    reward: AnyArray  # [T, N]
    next_observation: AnyArray  # [T, N, O]
    terminal: AnyArray  # [T, N] bool, the task ended here
    truncated: AnyArray  # [T, N] bool, the time limit ended the episode here
    success: AnyArray  # [T, N] bool

    @property
    def ended(self) -> AnyArray:
        """`[T, N]` bool, whether the next row is of another episode."""
        return self.terminal | self.truncated


class Diffuser(NamedTuple):
    """A trainable denoiser."""

    learner: Learner  # of trajectories x0 [B, T, D]
    denoiser: Callable[[PyTree], Denoiser]  # of the averaged weights


@dataclass(frozen=True)
class Bound:
    """A module-level function with static settings; equal settings compare equal.

    `jax.jit` recognises it as the program it has compiled already, which it cannot do for a
    lambda, a `functools.partial` or a bound method.
    """

    function: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...]

    @property
    def __name__(self) -> str:
        """The function's: JAX names its program so, in profiles and in counts of compilations."""
        return getattr(self.function, "__name__", "bound")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **dict(self.settings), **kwargs)


def bind(function: Callable[..., Any], *leaves: PyTree, **static: Any) -> Partial:
    """`function` with its first arguments bound: a function that is a pytree.

    `leaves` (parameters, arrays, other bound functions) are the leaves of the pytree; `static`
    settings are hashable and belong to the program. Two calls with equal `static` and leaves of
    equal shapes share one compilation.
    """
    return Partial(Bound(function, tuple(sorted(static.items()))), *leaves)


def expand(sigma: Array, x: Array) -> Array:
    """`sigma` with trailing axes of length 1, aligned with `x` from the LEFT.

    Raises:
        ValueError: if `sigma.shape` is not a prefix of `x.shape` (axes of length 1 are allowed).
    """
    sigma = jnp.asarray(sigma, x.dtype)
    prefix = x.shape[: sigma.ndim]
    if sigma.ndim > x.ndim or any(s not in (1, n) for s, n in zip(sigma.shape, prefix, strict=True)):
        raise ValueError(f"sigma of shape {sigma.shape} is not a prefix of x of shape {x.shape}")
    return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


def where_rows(rows: Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` in the rows `rows` `[B]` bool, `old` in the others; leaves of both are `[B, ...]`."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, old)


def named_keys(key: Array, *names: str) -> dict[str, Array]:
    """One typed key for each named use; `key` is consumed."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))
