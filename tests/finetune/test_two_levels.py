"""Both levels of a planner as decision processes: what is held, its densities, whose merit it was."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import segment_rows
from jdp.diffusion import chains
from jdp.diffusion.transitions import ddim
from jdp.errors import UserError
from jdp.finetune import two_levels
from jdp.finetune.chain import ChainConfig
from jdp.finetune.two_chains import Both
from jdp.finetune.two_levels import TwoLevelConfig
from jdp.finetune.two_merits import judged
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.plan_models import ModelConfig
from jdp.loops import train_online
from jdp.loops.collect import collect
from jdp.loops.on_policy import on_policy
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig
from jdp.planners.decision_diffuser import DecisionDiffuserConfig
from jdp.planners.hierarchical import HierarchicalConfig, hierarchical
from jdp.runs.models import stand_in
from jdp.tasks.simulators import chunked
from jdp.types import Spec, Stepped, Task

KEY = jax.random.key(0)
SPEC = Spec(2, 2, "plane", 8, goal=(0, 1))
NET = ModelConfig(network=NetworkConfig("mixer", 8, 1))
COLD = SamplingConfig(sampler="euler", steps=3, warm_steps=0)
BASE = HierarchicalConfig(
    horizon=8, jump=2, replan_every=2, high=NET, low=NET, sampling=COLD, low_sampling=COLD
)
CONFIG = TwoLevelConfig(
    acting=OnPolicyConfig(8, 6), chain=ChainConfig(3, 2), critic_hidden=(8,), epochs=1, minibatches=2
)


def _reset(key):
    place = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    return place, place, -place


def _step(key, state, action):
    state = state + 0.3 * action
    arrived = jnp.linalg.norm(state) < 0.2
    return state, Stepped(state, -jnp.linalg.norm(state), arrived, arrived)


PLANE = chunked(Task(_reset, _step, SPEC), BASE.jump)


@lru_cache
def base_state():
    rows = jax.tree.map(jnp.asarray, segment_rows(stand_in(SPEC), BASE.horizon))
    return jax.jit(hierarchical(BASE, SPEC).learner.init)(KEY, rows)


@lru_cache
def played(config=CONFIG):
    """A state whose weights have moved, and a rollout of it."""
    method = two_levels.two_levels(config, SPEC, base=BASE)
    learner = on_policy(method, PLANE, config.acting)

    @jax.jit
    def run(key, base):
        state = method.learner.init(key, base)
        params = {
            name: jax.tree.map(lambda x: x + 0.05, state.trained.params[name])
            for name in ("high", "low", "critic")
        }
        state = state._replace(trained=state.trained._replace(params=params))
        begun = learner.init(key, base).acting
        return state, collect(PLANE, method.behaviour, key, state, begun, config.acting.steps)[1]

    return run(KEY, base_state())


@pytest.mark.slow
def test_subgoals_are_held_for_as_many_segments_as_is_said():
    state, rollout = played()
    decided, ended = np.asarray(rollout.decision.decided), np.asarray(rollout.ended)
    since = np.zeros(decided.shape[1], int)
    for row, over in zip(decided, ended, strict=True):
        np.testing.assert_array_equal(row, since % CONFIG.hold == 0)
        since = np.where(over, 0, since + 1)
    drawn = rollout.decision.chain[:, -1, :, : 4 * 2].reshape(6, 8, 4, 2)
    wanted = state.base.scale.observation.inverse(drawn)
    aimed = rollout.decision.plan.subgoal[:, :, 0]
    for t, n in zip(*np.nonzero(decided), strict=True):
        for later in range(CONFIG.hold):  # rows 1, 2, ... of what was drawn are aimed at in turn
            if t + later < 6 and not ended[t : t + later, n].any():
                np.testing.assert_allclose(aimed[t + later, n], wanted[t, n, later + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_densities_of_moves_are_those_of_the_chains():
    state, rollout = played()
    both = Both(CONFIG.chain, CONFIG.hold, SPEC, BASE)
    rows, _ = jax.jit(lambda s, r: two_levels._rows(s, r, CONFIG, both))(state, rollout)
    level, count = both.levels["low"], 6 * 8
    states = rollout.decision.chain[..., 8:].swapaxes(0, 1).reshape(3, count, level.rows, level.channels)
    own = both.denoiser(state.trained.params["low"], level, rows.low.shown[:count])
    whole = chains.chain_log_prob(
        ddim, own, states, both.sigmas(level)[1:], std_floor=CONFIG.chain.std_floor, memory=(),
        event_axes=(-2, -1), mask=both.executed("low")[None],
    )  # fmt: skip
    above, below = (np.asarray(both.executed(name)) for name in ("high", "low"))
    assert below.sum() == BASE.jump * 2 and not below[:, :2].any() and not below[-1].any()  # actions alone
    np.testing.assert_array_equal(
        above.all(1), [False, True, True, False]
    )  # `hold` subgoals, not the present
    assert not (above & np.asarray(both.levels["high"].mask())).any()
    np.testing.assert_allclose(
        rows.log_prob[:, 1].reshape(2, count), whole / int(below.sum()), rtol=1e-3, atol=1e-4
    )
    merit = np.asarray(rows.advantage)
    assert not merit[~np.asarray(rows.decided), 0].any() and merit[np.asarray(rows.decided), 0].std() > 0.5


@pytest.mark.slow
def test_where_every_segment_has_subgoals_of_its_own_the_high_levels_merit_is_flat():
    config = replace(CONFIG, hold=1, high_trace=0.8, trace=0.8)
    state, rollout = played()
    rollout = rollout._replace(decision=rollout.decision._replace(decided=rollout.decision.decided | True))
    judge = jax.jit(lambda s, r, c: judged(s, r, c, SPEC, BASE.jump)[0], static_argnums=2)
    found, flat = judge(state, rollout, config), judge(state, rollout, replace(config, credit="flat"))
    np.testing.assert_allclose(found.high.advantage, flat.high.advantage, atol=1e-4)
    assert np.abs(found.low.advantage - flat.low.advantage).max() > 1e-3


def test_other_planners_are_refused():
    for base, spec, text in (
        (DecisionDiffuserConfig(), SPEC, "not what DecisionDiffuserConfig is of"),
        (BASE, replace(SPEC, goal=()), "without goals"),
    ):
        with pytest.raises(UserError, match=text):
            two_levels.two_levels(CONFIG, spec, base=base)
    with pytest.raises(UserError, match="at most 3"):
        two_levels.two_levels(replace(CONFIG, hold=4), SPEC, base=BASE)


@pytest.mark.slow
def test_in_turns_one_level_moves_and_the_critics_always():
    config = replace(CONFIG, turns=1, learning_rate=1e-3)
    method = two_levels.two_levels(config, SPEC, base=BASE)
    found = [
        train_online(method, PLANE, config.acting, key=KEY, updates=n, seeds=1, base=base_state(), chunk=1)
        for n in (1, 2)
    ]
    first, second = (jax.tree.map(lambda x: x[0], s.trained.params) for s in found)

    def moved(a, b):
        return any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    assert moved(first["high"], base_state().high.ema) and not moved(first["low"], base_state().low.ema)
    assert moved(second["low"], first["low"]) and not moved(second["high"], first["high"])
    assert moved(second["critic"], first["critic"])
