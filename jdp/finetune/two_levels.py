"""Hierarchical Diffuser, improved online: subgoals by the high level, what lies between by the low one.

Both levels denoise, so both are decision processes in DPPO's picture (arXiv 2409.00588), and each has the
merit that hierarchical advantages (HiPER, arXiv 2602.16165) give it. A file of two levels is a longer one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import check_settings
from jdp.finetune import chain, two_chains
from jdp.finetune.actor_critic import Improved
from jdp.finetune.chain import ChainConfig, Moves
from jdp.finetune.two_chains import Both, check_base, log_prob
from jdp.finetune.two_merits import CreditConfig, among, judged
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.optimiser import begin, copied
from jdp.learning.ppo import clipped_surrogate, epochs, flat, normalised
from jdp.learning.running import no_moments, seen
from jdp.learning.turns import in_turns
from jdp.planners.hierarchical import HierarchicalConfig, HierarchicalState
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Learner, Method, Metrics, Params, Policy, Rollout, Spec, named_keys


@dataclass(frozen=True)
class TwoLevelConfig(CreditConfig):
    """Settings of both levels; a step of the loop is a segment between two subgoals."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=64, steps=20))
    """A rollout; steps are segments."""
    hold: int = 2
    """Segments that are executed of one drawing of subgoals."""
    turns: int = 0
    """Updates after which the other level learns (HiMAC); 0: both always do."""
    chain: ChainConfig = field(default_factory=lambda: ChainConfig(levels=5, learned=3))
    """Of either level."""
    clip: float = 0.1
    """How far the ratio of a denoising step may go from 1."""
    denoising_discount: float = 0.99
    """Of the advantage, for each denoising step that still follows."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 4
    """Of an epoch."""
    learning_rate: float = 3e-4
    """Of either denoiser's Adam, constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("TwoLevelConfig", hold=(self.hold, 1, 10_000), turns=(self.turns, 0, 1 << 20))

    def optimiser(self) -> optax.GradientTransformation:
        """Adam for each level, in turns where that is asked for, and for the critics."""
        rates = {"high": self.learning_rate, "low": self.learning_rate, "critic": self.critic_learning_rate}
        every = self.turns * self.epochs * self.minibatches
        both = in_turns({name: optax.adam(rate) for name, rate in rates.items()}, every, ("critic",))
        return optax.chain(optax.clip_by_global_norm(self.grad_norm), both)


class Rows(NamedTuple):
    """A denoising step of either level as minibatches see them, `[B, ...]`."""

    high: Moves
    low: Moves
    log_prob: Array  # [B, 2], of high and low
    advantage: Array  # [B, 2]
    decided: Array  # [B] bool, whether the high level did
    seen: Array  # [B, O + G], as the critics are shown it
    target: Array  # [B, 2], standardised


def _init(key: Array, data: HierarchicalState, *, config: TwoLevelConfig, both: Both) -> Improved:
    """`data` is the state of the planner, whose averaged weights are improved."""
    dim, net, keys = both.spec.observation_dim, config.critic(), named_keys(key, "high", "low")
    shown = jnp.zeros(dim + len(both.spec.goal))
    critics = {
        "high": net.init(keys["high"], shown),
        "low": net.init(keys["low"], jnp.concatenate([shown, jnp.zeros(dim)])),
    }
    params = {"high": copied(data.high.ema), "low": copied(data.low.ema), "critic": critics}
    return Improved(begin(config.optimiser(), params), copied(data), no_moments(2))


def _rows(state: Improved, rollout: Rollout, config: TwoLevelConfig, both: Both) -> tuple[Rows, Improved]:
    """Every denoising step of every decision, `[K T N]`; the state, whose moments have seen the targets."""
    found, here, below = judged(state, rollout, config, both.spec, both.base.jump)
    assert rollout.decision.chain is not None
    steps, dim = both.chain.learned, both.spec.observation_dim
    decided, alike = rollout.decision.decided, rollout.decision.decided | True
    together = config.credit == "flat"
    merit = normalised(found.high.advantage) if together else among(found.high.advantage, decided)
    merit = jnp.stack([jnp.where(decided, merit, 0.0), among(found.low.advantage, alike)], axis=-1)
    targets = jnp.stack([found.high.target, found.low.target], axis=-1)
    state = state._replace(targets=seen(state.targets, targets))
    drawn = jnp.moveaxis(rollout.decision.chain, 1, 0)  # [T, K + 1, N, D] to [K + 1, T, N, D]
    drawn = drawn.reshape(steps + 1, -1, drawn.shape[-1])
    width = both.levels["high"].rows * dim
    shown = {
        "high": flat(here),
        "low": jnp.concatenate([flat(here)[:, :dim], flat(below)[:, -dim:]], axis=-1),
    }
    parts = {"high": drawn[..., :width], "low": drawn[..., width:]}
    moves = {}
    for name, level in both.levels.items():
        whole = parts[name].reshape(*parts[name].shape[:2], level.rows, level.channels)
        moves[name] = flat(chain.moves(whole, shown[name]))
    old = [log_prob(state.trained.params[name], name, moves[name], both) for name in moves]
    rest = flat((merit, decided, here, state.targets.affine()(targets)))
    each = flat(tuple(jnp.broadcast_to(x[None], (steps, *x.shape)) for x in rest))
    return Rows(moves["high"], moves["low"], jnp.stack(old, axis=-1), *each), state


def _loss(params: Params, rows: Rows, *, config: TwoLevelConfig, both: Both) -> tuple[Array, Metrics]:
    total, metrics = jnp.zeros(()), {}
    for i, (name, moves) in enumerate({"high": rows.high, "low": rows.low}.items()):
        own = log_prob(params[name], name, moves, both)
        if name == "high":  # where it decided nothing there is nothing to learn
            own = jnp.where(rows.decided, own, rows.log_prob[:, i])
        left = (config.chain.learned - 1 - moves.step).astype(jnp.float32)
        merit = rows.advantage[:, i] * config.denoising_discount**left
        loss, more = clipped_surrogate(own, rows.log_prob[:, i], merit, config.clip)
        total, metrics = total + loss, {**metrics, **{f"{name}_{k}": x for k, x in more.items()}}
    net, subgoal = config.critic(), rows.low.shown[:, both.spec.observation_dim :]
    below = jnp.concatenate([rows.seen, subgoal], axis=-1)
    said = [net.apply(params["critic"][k], x) for k, x in (("high", rows.seen), ("low", below))]
    value_loss = jnp.mean(jnp.square(jnp.concatenate(said, axis=-1) - rows.target))
    kl = jnp.maximum(metrics["high_approximate_kl"], metrics["low_approximate_kl"])
    total = total + config.value_weight * value_loss
    return total, {"loss": total, "value_loss": value_loss, "approximate_kl": kl, **metrics}


def _update(
    key: Array, state: Improved, rollout: Rollout, *, config: TwoLevelConfig, both: Both
) -> tuple[Improved, Metrics]:
    rows, state = _rows(state, rollout, config, both)
    trained, metrics = epochs(key, state.trained, rows, partial(_loss, config=config, both=both), config)
    return state._replace(trained=trained), metrics


def presets(task: Task) -> Mapping[str, Preset]:
    """Our own sizes: the paper's agents are language models."""
    del task
    tiny = TwoLevelConfig(
        acting=OnPolicyConfig(4, 4), chain=ChainConfig(3, 2), critic_hidden=(32,), epochs=1, minibatches=2
    )
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(TwoLevelConfig(), updates=50, batch_size=0, seeds=3),
        "paper": Preset(TwoLevelConfig(), updates=500, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "two_levels",
    TwoLevelConfig,
    presets,
    title="HiPER's advantages for two levels",
    paper="arXiv 2602.16165",
    idea="PPO on the last denoising steps of both levels of `hierarchical`, each with advantages of its own",
    departures="the levels are a planner's chains and no language model's; new subgoals are due by a clock, "
    "so no head learns when; `turns` learns as HiMAC (arXiv 2603.00977) does, with critics",
    base="hierarchical",  # the planner that it improves
    chunks="jump",  # an action of its behaviour is a segment of so many
)
@lru_cache
def two_levels(config: TwoLevelConfig, spec: Spec, *, base: HierarchicalConfig) -> Method:
    """PPO on both levels of a planner of settings `base`; `spec` is the task's, of single actions.

    Its `behaviour` decides segments `[B, jump * A]`, for `jdp.tasks.simulators.chunked`; every `hold` of them
    subgoals are drawn anew, and each segment is drawn from where the last one has led. `policy` acts step by
    step. `init` sees the state of the planner, whose inverse model and critics play no part.
    """
    both = Both(config.chain, config.hold, spec, check_base(base, spec, config.hold))
    bound = (("both", both),)
    settings = (*bound, ("config", config))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), NoDraw())
    explore = Bound(two_chains.segment, (*bound, ("floor", config.chain.std_floor)))
    return Method(
        learner,
        Policy(Bound(two_chains.queue, bound), Bound(two_chains.act, bound)),
        Policy(Bound(two_chains.holding, bound), explore),
    )
