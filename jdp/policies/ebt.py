"""EBT-Policy (arXiv 2510.27545): an energy of chunks is learned, and acting descends it until it is flat.

How long that takes depends on the situation: `Decision.steps` says it, and `Decision.value` is minus the
energy that is reached, which is high where the policy is unsure. Longer than other files by its descent,
which is no sampler of a denoiser.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.errors import check_choices, check_settings
from jdp.learning import averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.observations import observation_affine
from jdp.learning.optimiser import clipped_adam
from jdp.learning.scale import clip_action
from jdp.networks.mlp import mlp
from jdp.policies import chunks
from jdp.policies.chunks import ChunkCarry, Chunked, CloneState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, mean_of
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Method,
    Metrics,
    Network,
    Params,
    Policy,
    Segments,
    Spec,
    bind,
    named_keys,
)


@dataclass(frozen=True)
class EBTConfig(Chunked):
    """Settings of EBT-Policy.

    Of two modes in the plane, descents from pure noise come within .1 of a mode on 81 % of starts in 6 steps
    and on 98 % in 20; with `most_steps` 1 and `relaxation` 1.25 on 97 % and 99 %; with `start` noise on none.
    """

    chunk: int = 16
    """Actions that are predicted, from the present one on."""
    execute: int = 8
    """Actions that are executed before the next prediction."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the energy's network, with SiLU."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    steps: int = 1_000_000
    """Updates over which the learning rate falls to 0 by a cosine."""
    ema: float = 0.999
    """Decay of the averaged weights that are descended, per update."""
    grad_norm: float = 1.0
    """Largest norm of a gradient of the loss."""
    least_steps: int = 2
    """Of the descents that are learned from."""
    most_steps: int = 6
    """Of the descents that are learned from; each row's number is drawn. With 1 the energy parts modes
    better: later steps begin between them, where the mean that they learn is."""
    step_size: float = 1.0
    """Of the descent, before it is learned."""
    noise: float = 0.01
    """Std of Langevin noise at the first step of training; it falls to 0 at the last. None when acting."""
    start: Literal["noised", "noise"] = "noised"
    """Where training descends from: the data's chunk with noise of a random level up to 1, or noise alone as
    in the paper. Noise alone does not tell which of several modes is meant: the loss leads between them."""
    tolerance: float = 0.01
    """A chunk rests after a move that changes its entries by less than this (root mean square)."""
    relaxation: float = 1.0
    """Multiplies the learned step size when acting; somewhat above 1 it arrives sooner."""
    limit: int = 20
    """Steps after which acting rests anyway."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_settings(
            "EBTConfig",
            least_steps=(self.least_steps, 1, self.most_steps),
            limit=(self.limit, 1, 10_000),
            noise=(self.noise, 0, 10),
            relaxation=(self.relaxation, 0.01, 2),
        )

    def network(self) -> Network:
        """Of a flat chunk beside a condition, `[B, chunk * A + C]`, to `[B, 1]`."""
        return mlp((*self.hidden, 1), activation="silu")

    def optimiser(self) -> optax.GradientTransformation:
        """Adam on the cosine, with gradients cut to `grad_norm`."""
        return clipped_adam(optax.cosine_decay_schedule(self.learning_rate, self.steps), self.grad_norm)


Energy = Callable[[Array], Array]  # of x [B, D], [B]: a pytree function


def _energy(params: Params, seen: Array, x: Array, *, network: Network) -> Array:
    return network.apply(params["energy"], jnp.concatenate([x, seen], axis=-1))[:, 0]


def energy(params: Params, seen: Array, config: EBTConfig) -> Partial:
    """`E(x [B, D]) -> [B]` given a condition `[B, C]`."""
    return bind(_energy, params, seen, network=config.network())


def slope(energy: Energy, x: Array) -> Array:
    """`dE / dx` of every row, `[B, D]`."""
    return jax.grad(lambda x: jnp.sum(energy(x)))(x)


def unrolled(energy: Energy, x: Array, step_size: Array, noise: Array) -> Array:
    """`[K, B, D]`, `x <- x + n_k; x <- x - step_size dE / dx`, differentiable through all steps.

    `noise` `[K, B, D]` is scaled already.
    """

    def body(x: Array, n: Array) -> tuple[Array, Array]:
        x = x + n
        x = x - step_size * slope(energy, x)
        return x, x

    return jax.lax.scan(body, x, noise)[1]


class Descent(NamedTuple):
    """Where rows came to rest."""

    x: Array  # [B, D]
    energy: Array  # [B]
    steps: Array  # [B] int32, gradients that were taken


def descend(energy: Energy, x: Array, step_size: Array | float, tolerance: float, limit: int) -> Descent:
    """Gradient descent from `x` `[B, D]`; each row rests after its first move below the `tolerance`.

    Moves are measured by the root mean square over entries. The loop ends when all rows rest.
    """

    def body(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, moving, steps, k = state
        move = step_size * slope(energy, x)
        far = jnp.sqrt(jnp.mean(jnp.square(move), axis=-1)) >= tolerance
        x = jnp.where(moving[:, None], x - move, x)
        return x, moving & far, steps + moving.astype(jnp.int32), k + 1

    rows = x.shape[0]
    first = (x, jnp.ones(rows, bool), jnp.zeros(rows, jnp.int32), jnp.zeros((), jnp.int32))
    x, _, steps, _ = jax.lax.while_loop(lambda s: jnp.any(s[1]) & (s[3] < limit), body, first)
    return Descent(x, energy(x), steps)


LOWEST, HIGHEST = 0.03, 1.0  # levels of the noise on the chunk that training begins with


def loss(
    key: Array, params: Params, seen: Array, x0: Array, keep: Array, config: EBTConfig
) -> tuple[Array, Metrics]:
    """The mean of `|x_k - x0|^2` over the K steps of each row's descent, given conditions `seen` `[B, C]`.

    The mean is over the rows `keep` `[B]` too. The key is consumed.
    """
    keys, most = named_keys(key, "start", "level", "noise", "steps"), config.most_steps
    start = jax.random.normal(keys["start"], x0.shape)
    if config.start == "noised":
        level = LOWEST * (HIGHEST / LOWEST) ** jax.random.uniform(keys["level"], (x0.shape[0], 1))
        start = x0 + level * start
    drawn = jax.random.randint(keys["steps"], keep.shape, config.least_steps, most + 1)  # [B]
    count, k = drawn.astype(x0.dtype)[None], jnp.arange(most, dtype=x0.dtype)[:, None]  # [1, B], [K, 1]
    left = jnp.maximum(1 - k / jnp.maximum(count - 1, 1), 0.0)  # 1 at the first step, 0 at the last
    noise = config.noise * left[..., None] * jax.random.normal(keys["noise"], (most, *x0.shape))
    chain = unrolled(energy(params, seen, config), start, jnp.exp(params["step_size"]), noise)
    error = jnp.mean(jnp.square(chain - x0[None]), axis=-1)  # [K, B]
    each = jnp.sum(jnp.where(k < count, error, 0.0) / count, axis=0)
    last = jnp.take_along_axis(error, drawn[None] - 1, axis=0)[0]
    found = mean_of(each, keep)
    return found, {
        "loss": found,
        "last_error": mean_of(last, keep),
        "step_size": jnp.exp(params["step_size"]),
    }


def _init(key: Array, rows: SegmentRows, *, config: EBTConfig, spec: Spec) -> CloneState:
    check_fits(rows.observation, rows.action, spec, "policy")
    seen = config.history * spec.observation_dim + len(spec.goal)
    net = config.network().init(key, jnp.zeros(config.chunk * spec.action_dim + seen))
    params = {"energy": net, "step_size": jnp.log(jnp.asarray(config.step_size, jnp.float32))}
    return CloneState(averaged.begin(config.optimiser(), params), observation_affine(rows.observation))


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: EBTConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    seen, chunk = chunks.example(batch, state.standardise, config, spec)

    def of_params(params: Params) -> tuple[Array, Metrics]:
        return loss(key, params, seen, chunk, imitated(batch, spec), config)

    actor, metrics = averaged.descend(config.optimiser(), state.actor, of_params, config.ema)
    return state._replace(actor=actor), metrics


def _act(
    key: Array,
    state: CloneState,
    carry: ChunkCarry,
    observation: Array,
    goal: Array,
    *,
    config: EBTConfig,
    spec: Spec,
) -> tuple[ChunkCarry, Decision]:
    """Steps and value are of chunks that are made now, and 0 while one is executed."""

    def sample(past: Past) -> tuple[Array, tuple[Array, Array]]:
        shown = chunks.condition(state.standardise, past.history, goal, spec)
        params, width = state.actor.ema, config.chunk * spec.action_dim
        x = jax.random.normal(key, (shown.shape[0], width))
        size = config.relaxation * jnp.exp(params["step_size"])
        found = descend(energy(params, shown, config), x, size, config.tolerance, config.limit)
        return clip_action(found.x), (found.steps, -found.energy)

    carry, decision, (steps, value) = chunks.telling_step(carry, observation, sample)
    return carry, decision._replace(steps=steps, value=value)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(EBTConfig(), task)


@register(
    "policy",
    "ebt",
    EBTConfig,
    presets,
    title="EBT-Policy",
    paper="arXiv 2510.27545",
    idea="descends a learned energy of chunks until it is flat, as many steps as that takes",
    departures="an MLP of the flat chunk and the last observation; training begins at noised data (on "
    "request at noise), and its gradient passes all steps; the step size does not grow with the energy, and "
    "no norm stands before the last step",
    fit=falling_rates,
)
@lru_cache
def ebt(config: EBTConfig, spec: Spec) -> Method:
    """EBT-Policy; equal arguments give the same one."""
    settings: tuple[tuple[str, Any], ...] = (("config", config), ("spec", spec))
    learner = chunks.clone_learner(_init, _update, config, spec)
    return Method(learner, Policy(Bound(chunks.start, settings), Bound(_act, settings)))
