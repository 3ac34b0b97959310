"""Attributes of behaviour, such as speed or height: their strengths are learned from preferences.

AlignDiff (Dong et al. 2024, arXiv 2310.02054): of two segments somebody says which one is faster. An ensemble
learns from such answers how strong an attribute is (Bradley and Terry's model), and a planner is shown that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError, check_settings
from jdp.learning import averaged
from jdp.learning.averaged import Averaged
from jdp.learning.optimiser import adam
from jdp.networks import ValueNetworkConfig, make_value
from jdp.tasks import groups, mazes
from jdp.types import Bound, Metrics, Params, Spec, named_keys

Labeller = Callable[[Array], Array]  # (observations [B, T, O] in the units of the task) -> strength [B]
LARGEST = 20.0  # of a learned strength, by tanh, as in the paper


def _entry(observation: Array, *, entry: int) -> Array:
    return jnp.mean(observation[..., entry], axis=1)


def _speed(observation: Array, *, entries: tuple[int, ...]) -> Array:
    return jnp.mean(jnp.linalg.norm(observation[..., jnp.array(entries)], axis=-1), axis=1)


def _steps(observation: Array, *, entries: tuple[int, ...]) -> Array:
    at = observation[..., jnp.array(entries)]
    return jnp.mean(jnp.linalg.norm(at[:, 1:] - at[:, :-1], axis=-1), axis=1)


def _clearance(observation: Array, *, maze: mazes.Maze) -> Array:
    """To the nearest wall, in cells; the mean over the rows."""
    first, step = (jnp.asarray(x, jnp.float32) for x in maze.frame)
    walls = jnp.argwhere(jnp.asarray(~maze.free), size=int((~maze.free).sum()))[:, ::-1]  # (column, row)
    at = (observation[..., None, :2] - first[None, None, None]) / step[None, None, None]  # in cells
    away = jnp.maximum(jnp.abs(at - walls[None, None].astype(jnp.float32)) - 0.5, 0.0)
    return jnp.mean(jnp.min(jnp.linalg.norm(away, axis=-1), axis=-1), axis=1)


def labeller(name: str, spec: Spec) -> Labeller:
    """Who answers for a human: the strength of the attribute `name` in segments of observations.

    "speed": forward, of MuJoCo's bodies; of others the length of their velocity, or of the step from row to
    row where none is observed. "height": of a torso. "clearance": in mazes, from the nearest wall. "7":
    entry 7 of the observation. All are means over the rows.

    Raises:
        UserError: for an attribute that the task has not.
    """
    maze, body, known = mazes.maze_of(spec), groups.is_body(spec), dict(groups.groups_of(spec))
    if name == "speed" and body:
        return Bound(_entry, (("entry", known["velocity"][0]),))
    if name == "speed" and "velocity" in known:
        return Bound(_speed, (("entries", known["velocity"]),))
    if name == "speed":
        return Bound(_steps, (("entries", spec.goal or tuple(range(spec.observation_dim))),))
    if name == "height" and body and not (spec.env_id or "").startswith("Swimmer"):
        return Bound(_entry, (("entry", 0),))
    if name == "clearance" and maze is not None:
        return Bound(_clearance, (("maze", maze),))
    if name.isdigit() and int(name) < spec.observation_dim:
        return Bound(_entry, (("entry", int(name)),))
    there = ["speed", *(["height"] if body else []), *(["clearance"] if maze is not None else [])]
    told = ", ".join((*there, f"0 to {spec.observation_dim - 1} (entries of the observation)"))
    raise UserError(f"{spec.env_id or 'the task'} has no attribute {name!r}: there are {told}")


@dataclass(frozen=True)
class StrengthConfig:
    """What learns how strong attributes are, from preferences between segments."""

    network: ValueNetworkConfig = field(default_factory=lambda: ValueNetworkConfig("pooled", 32, 2))
    members: int = 3
    """Networks that learn apart; strengths are their mean."""
    learning_rate: float = 1e-3
    """Peak of the same schedule as the denoiser's."""
    steps: int = 10_000
    """As of the denoiser."""
    ema: float = 0.99
    """Decay of the averaged weights, and of the mean and spread of strengths."""
    errors: float = 0.0
    """Share of the answers that are wrong."""

    def __post_init__(self) -> None:
        check_settings("StrengthConfig", members=(self.members, 1, 64), errors=(self.errors, 0, 0.5))


class Strengths(NamedTuple):
    """What was learned of K attributes by M members."""

    members: Averaged  # of weights [M, ...]
    mean: Array  # [K], of the strengths of the dataset's segments
    std: Array  # [K]


def begin(key: Array, config: StrengthConfig, rows: int, observation_dim: int, attributes: int) -> Strengths:
    """The state before training, of segments `[B, rows, O]`; the key is consumed."""
    x, which = jnp.zeros((1, rows, observation_dim)), jnp.zeros((1, attributes))
    net, keys = make_value(config.network), jax.random.split(key, config.members)
    params = jax.vmap(lambda key: net.init(key, x, jnp.zeros(1), which))(keys)
    return Strengths(averaged.begin(adam(config), params), jnp.zeros(attributes), jnp.ones(attributes))


def _raw(params: Params, x: Array, attributes: int, config: StrengthConfig) -> Array:
    """`[M, B, K]`, of standardised segments `x` `[B, T, O]`; one network a member, told which attribute."""
    net, batch = make_value(config.network), x.shape[0]
    which = jnp.repeat(jnp.eye(attributes), batch, axis=0)  # [K B, K]
    many = jnp.tile(x, (attributes, 1, 1))
    found = jax.vmap(lambda own: net.apply(own, many, jnp.zeros(many.shape[0]), which))(params)
    found = found.reshape(config.members, attributes, batch)
    return LARGEST * jnp.tanh(jnp.swapaxes(found, 1, 2) / LARGEST)


def standing(state: Strengths, x: Array, config: StrengthConfig) -> Array:
    """`[B, K]` within (0, 1): about which share of the dataset's segments `x` `[B, T, O]` exceeds."""
    strength = jnp.mean(_raw(state.members.ema, x, state.mean.shape[0], config), axis=0)
    return jax.scipy.stats.norm.cdf((strength - state.mean[None]) / state.std[None])


def preference_loss(strength: Array, preferred: Array) -> Array:
    """Mean cross-entropy of Bradley and Terry's model: `P(i before j) = sigmoid(strength_i - strength_j)`.

    Args:
        strength: `[..., B]`; segment i is compared with segment i + 1, the last one with the first.
        preferred: `[..., B]`, 1 where segment i is preferred to the next one.
    """
    margin = strength - jnp.roll(strength, -1, axis=-1)
    return -jnp.mean(preferred * jax.nn.log_sigmoid(margin) + (1 - preferred) * jax.nn.log_sigmoid(-margin))


def update(
    key: Array, state: Strengths, x: Array, labels: Array, config: StrengthConfig
) -> tuple[Strengths, Metrics]:
    """One step of all members on the pairs of a batch; the key is consumed.

    Args:
        x: `[B, T, O]`, standardised.
        labels: `[B, K]`, the labellers' strengths; only which one of a pair is greater is told.
    """
    attributes = labels.shape[1]
    preferred = (labels > jnp.roll(labels, -1, axis=0)).T.astype(jnp.float32)  # [K, B]
    wrong = jax.random.bernoulli(named_keys(key, "wrong")["wrong"], config.errors, preferred.shape)
    told = jnp.where(wrong, 1 - preferred, preferred)

    def loss(params: Params) -> tuple[Array, Metrics]:
        strength = jnp.swapaxes(_raw(params, x, attributes, config), 1, 2)  # [M, K, B]
        margin = jnp.mean(strength - jnp.roll(strength, -1, axis=-1), axis=0)
        agree = jnp.mean((margin > 0) == (preferred > 0.5))
        # Members do not share weights, so the sum of their means trains each as if it were alone.
        total = config.members * preference_loss(strength, jnp.broadcast_to(told[None], strength.shape))
        return total, {"preference_loss": total / config.members, "preference_accuracy": agree}

    members, metrics = averaged.descend(adam(config), state.members, loss, config.ema)
    found = jnp.mean(_raw(members.ema, x, attributes, config), axis=0)
    new = jnp.mean(found, axis=0), jnp.maximum(jnp.std(found, axis=0), 1e-3)
    decay = averaged.ema_decay(config.ema, state.members.step)
    mean, std = (
        decay * old + (1 - decay) * now for old, now in zip((state.mean, state.std), new, strict=True)
    )
    return Strengths(members, mean, std), metrics
