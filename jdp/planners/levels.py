"""A level of planning: what trajectories of one kind are, and how they are learned. Planners have one or two.

Its parts are a denoiser, a critic that steers and chooses where there is one, and a user's guide.
`jdp.planners.drawing` draws.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.guidance import hold
from jdp.diffusion.samplers import FLOW_SAMPLERS
from jdp.errors import UserError
from jdp.learning.averaged import Averaged
from jdp.learning.plan_critics import Critic
from jdp.learning.plan_models import Model
from jdp.learning.scale import Scale
from jdp.planners.trajectory import SamplingConfig, check_sampler
from jdp.types import Context, Denoiser, Guide, Metrics, Params, PyTree, Spec


class Steering(NamedTuple):
    """How a critic steers the drawing of plans (see `jdp.diffusion.guidance.value_guided`)."""

    strength: float  # 0: it only chooses
    point: Literal["denoised", "noised"] = "denoised"
    steps: int = 1  # of Newton's method; 0: one plain gradient step


@dataclass(frozen=True)
class Level:
    """What trajectories `[B, T, O + E]` are learned and drawn with, but for the weights; hashable.

    Raises:
        UserError: if sampler and formulation do not go together, or a flow map is to be steered or guided.
    """

    spec: Spec  # its `goal` are the entries of the last row that are given
    rows: int  # T
    extra: int  # E, entries of a row beside the observation: actions
    model: Model
    sampling: SamplingConfig
    critic: Critic | None = None
    steering: Steering = Steering(0.0)  # noqa: RUF009 (an immutable tuple)
    candidates: int = 1
    guide: Guide | None = None
    trace: bool = False  # whether the chains out of noise are kept

    def __post_init__(self) -> None:
        check_sampler(self.sampling, self.model.formulation)
        steered = self.guide is not None or (self.critic is not None and self.steering.strength)
        if steered and self.sampling.sampler in FLOW_SAMPLERS:
            raise UserError(
                "a flow map has no denoised point to guide: set the guidance to 0, or train a denoiser"
            )

    @property
    def channels(self) -> int:
        """`O + E`."""
        return self.spec.observation_dim + self.extra

    def mask(self) -> Array:
        """`[T, O + E]` bool, the entries that `known` knows."""
        mask = jnp.zeros((self.rows, self.channels), bool).at[0, : self.spec.observation_dim].set(True)
        return mask.at[-1, jnp.array(self.spec.goal)].set(True) if self.spec.goal else mask

    def known(self, here: Array, aim: Array) -> tuple[Array, Array]:
        """`(known, mask)` `[B, T, O + E]`: the present `[B, O]` in row 0, the goal `[B, G]` in the last.

        Both are standardised. Without goals only row 0 is known.
        """
        known = jnp.zeros((here.shape[0], self.rows, self.channels), here.dtype)
        known = known.at[:, 0, : here.shape[1]].set(here)
        if self.spec.goal:
            known = known.at[:, -1, jnp.array(self.spec.goal)].set(aim)
        return known, jnp.broadcast_to(self.mask()[None], known.shape)

    def given(self, context: Context) -> tuple[Array, Array]:
        """`known` of what a context says in the units of the task."""
        scale, goal = context.scale, context.goal
        assert isinstance(scale, Scale)  # of a planner
        aim = scale.goal(goal, self.spec) if self.spec.goal else goal
        return self.known(scale.observation(context.observation), aim)

    def held(self, params: Params, known: tuple[Array, Array], condition: Array | None = None) -> Denoiser:
        """The denoiser of weights `params`, neither steered nor guided, that is shown what is `known`."""
        weights = Averaged(params, params, (), jnp.zeros((), jnp.int32))
        return hold(self.model.denoiser(weights, or_none(condition, known[0].shape[0])), *known)

    def first_action(self, weight: float) -> Array:
        """`[1, T, O + E]`, of a loss in which the first action counts `weight` times."""
        ones = jnp.ones((self.rows, self.channels))
        return ones.at[0, self.spec.observation_dim :].set(weight)[None]

    def value_of(self, scale: Scale, score: Array) -> Array:
        """The critic's scores `[B]` of standardised returns in the units of the task; 0 without a critic."""
        return score if self.critic is None else scale.value.inverse(score[:, None])[:, 0]


class Learned(NamedTuple):
    """The weights of a level."""

    model: Averaged
    critic: PyTree = None  # Averaged, where there is one


class Lesson(NamedTuple):
    """What a level learns from a batch."""

    x0: Array  # [B, T, O + E], standardised
    known: Array  # bool, broadcasts to x0: shown without noise
    weight: Array | None = None  # broadcasts to x0, of the denoiser's loss; None: 1
    condition: Array | None = None  # [B, C], of the denoiser; None: C = 0
    judged_by: Array | None = None  # [B, J], likewise, of the critic
    target: Array | None = None  # [B], what the critic regresses


def or_none(condition: Array | None, rows: int) -> Array:
    """`condition`, or `[rows, 0]` where there is none."""
    return jnp.zeros((rows, 0)) if condition is None else condition


def begin(
    level: Level, model_key: Array, critic_key: Array | None, condition: int = 0, judged_by: int = 0
) -> Learned:
    """The first weights, for conditions of these widths; the keys are consumed."""
    x0 = jnp.zeros((1, level.rows, level.channels))
    model = level.model.init(model_key, x0, jnp.zeros((1, condition)))
    if level.critic is None:
        return Learned(model)
    assert critic_key is not None
    return Learned(model, level.critic.init(critic_key, x0, jnp.zeros((1, judged_by))))


def learn(
    level: Level, model_key: Array, critic_key: Array | None, learned: Learned, lesson: Lesson
) -> tuple[Learned, Metrics]:
    """One update of the denoiser, and of the critic where there is one; the keys are consumed."""
    x0, known, weight, condition, judged_by, target = lesson
    seen, asked = (or_none(x, x0.shape[0]) for x in (condition, judged_by))
    weight = jnp.ones((1, 1, 1)) if weight is None else weight
    model, metrics = level.model.update(model_key, learned.model, x0, seen, known, weight)
    if level.critic is None:
        return Learned(model), metrics
    assert critic_key is not None and target is not None
    critic, more = level.critic.update(critic_key, learned.critic, x0, asked, known, target)
    return Learned(model, critic), {**metrics, **more}
