"""Settings that planners share: how far and how often they plan, how a critic steers, how they improve."""

from dataclasses import dataclass, field
from typing import Literal

from jdp.errors import UserError, check_choices, check_settings
from jdp.learning.candidates import check_candidates
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.planners.levels import Steering
from jdp.planners.trajectory import SamplingConfig


@dataclass(frozen=True)
class ReturnsConfig:
    """The returns to go that critics learn."""

    discount: float = 0.997
    """Of a step."""
    terminal_penalty: float = -100.0
    """Added to the reward of a terminal step (Diffuser, arXiv 2205.09991, on locomotion)."""

    def __post_init__(self) -> None:
        check_settings("ReturnsConfig", discount=(self.discount, 0, 1))


def check_horizon(horizon: int, stride: int, replan_every: int, span: int | None = None) -> None:
    """Raises `UserError` unless rows of `stride` steps fill the horizon and a plan lasts until the next.

    `span` is the steps of a plan where they are not the horizon.
    """
    span = horizon if span is None else span
    if stride < 1 or horizon % stride or horizon < 2 * stride:
        raise UserError(
            f"a horizon of {horizon} steps is not divisible into two or more rows of {stride}: choose a "
            f"multiple of the stride, for instance {max(2, round(horizon / max(stride, 1))) * max(stride, 1)}"
        )
    if not 0 <= replan_every <= span:
        raise UserError(
            f"replan_every is {replan_every}: a plan of {span} steps lasts 1 to {span}, or with 0 "
            "until the episode ends"
        )


@dataclass(frozen=True)
class FollowedConfig:
    """What the settings of all planners share."""

    horizon: int = 32
    """Steps that a plan spans, a multiple of those between two of its rows."""
    replan_every: int = 1
    """Steps that a plan is followed; 0: one plan an episode, at whose last row it then stays."""
    control: Literal["model", "waypoints"] = "model"
    """How plans become actions: by planned actions or an inverse model, as the planner has it, or in
    PointMaze by Diffuser's controller, to the next planned state (`jdp.planners.waypoints`)."""
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_candidates(getattr(self, "candidates", 1))


@dataclass(frozen=True)
class PlannerConfig(FollowedConfig):
    """What the settings of planners with one denoiser share."""

    stride: int = 1
    """Steps between two rows of a plan."""
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_horizon(self.horizon, self.stride, self.replan_every, self.span)

    @property
    def span(self) -> int:
        """Steps of a plan."""
        return self.horizon


@dataclass(frozen=True)
class SteeredConfig(FollowedConfig):
    """What the settings of planners share whose plans a critic of noisy plans steers and chooses."""

    candidates: int = 64
    """Plans drawn at a decision on tasks with rewards; the one of the highest value is followed."""
    guidance: float = 0.1
    """Strength of the pull to high values, which are standardised over the dataset; 0: none. The entries of a
    plan move together, so that a pull on each counts many times: 1 drives hopper's plans off the data."""
    guidance_point: Literal["denoised", "noised"] = "denoised"
    """Where the value's gradient is taken (see `jdp.diffusion.guidance.value_guided`)."""
    guidance_steps: int = 0
    """Newton steps at each noise level; 0: one plain gradient step, cheap, and enough for a weak pull."""
    action_weight: float = 10.0
    """Weight of the first action in the loss."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(warm_steps=0))
    """Warm starts are for one candidate: choosing the most valued of several re-noised copies of the last
    choice, step after step, breeds plans that only the critic believes in (on hopper it falls at once)."""

    def steering(self, strength: float | None = None) -> Steering:
        """By `guidance`, or by `strength`."""
        strength = self.guidance if strength is None else strength
        return Steering(strength, self.guidance_point, self.guidance_steps)


@dataclass(frozen=True, kw_only=True)
class SelfImprovementConfig:
    """Settings of rounds of learning from one's own plans, and of the test that plans must pass."""

    rounds: int = 2
    """How often plans are made, kept and learned from."""
    plans: int = 10_000
    """Plans made in a round, before the test."""
    finetune_share: float = 0.25
    """Gradient steps of a round, as a share of those of the first training."""
    imagined_share: float = 0.5
    """Share of kept plans in the batches of a round; the rest is data."""
    value_quantile: float = 0.8
    """Tasks with rewards: the critic must value a plan above this quantile of its values of real segments."""
    error_quantile: float = 0.5
    """Share of the plans that count as consistent: those whose actions differ least from the inverse model's.
    Not compared with data: on deterministic tasks no drawn plan is as exact."""
    quantile: float = 0.99
    """Of the longest step and the largest action of real segments, which plans must not exceed by far."""
    slack: float = 1.2
    """By how much they may: drawn plans are not as exact as data."""
    reference: int = 256
    """Real segments that plans are compared with."""

    def __post_init__(self) -> None:
        shares = ("finetune_share", "imagined_share", "value_quantile", "error_quantile", "quantile")
        check_settings(type(self).__name__, **{name: (getattr(self, name), 0, 1) for name in shares})

    def steps(self, updates: int) -> tuple[int, int]:
        """`(of a round, in all)`, gradient steps where the first training takes `updates`."""
        each = round(self.finetune_share * updates)
        return each, updates + self.rounds * each
