"""A bandit of two modes: who sees Q takes the rarer, better one; who imitates keeps both, and their std."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from policy_batches import GOALS, MODE, SHARE, STD, TINY, actions_of, bandit, offsets_of, programs, trained

from jdp.data.segments import rows_of
from jdp.policies import make


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dql", "idql", "edp", "fql"])
def test_q_prefers_the_better_mode(name):
    found = actions_of(programs(name).method, trained(name, 300))
    assert (found > 0.2).mean() > 0.95  # of the data's actions a share of .3


def both_modes(found, tolerance):
    """Their shares, their middles and their spreads."""
    assert (found > 0).mean() == pytest.approx(SHARE, abs=tolerance)
    for sign in (1, -1):
        mode = found[sign * found > 0]
        assert np.median(mode) == pytest.approx(sign * MODE, abs=0.06)
        spread = np.diff(np.quantile(mode, [0.1587, 0.8413]))[0] / 2
        assert spread == pytest.approx(STD, rel=0.35)


@pytest.mark.slow
def test_diffusion_policy_keeps_both_modes():
    both_modes(actions_of(programs("diffusion_policy").method, trained("diffusion_policy", 800)), 0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rti", "streaming"])
def test_what_goes_on_from_the_last_chunk_keeps_both_modes(name):
    """Ten steps later too. A warm start, without noise, settles in the middle of each; a stream does not."""
    method, state = programs(name).method, trained(name, 800)
    observation, goals = np.random.default_rng(8).normal(size=(2, 1024, 3)).astype(np.float32)
    carry, found = method.policy.init(observation), np.zeros((1024, 2))
    for step in range(10):
        key = jax.random.key(step)
        carry, decision = programs(name).act(key, state, carry, observation, goals[:, :2])
        found = np.asarray(decision.action)
    found = found[:, 0]
    assert (found > 0).mean() == pytest.approx(SHARE, abs=0.08)
    for sign in (1, -1):
        mode = found[sign * found > 0]
        assert np.median(mode) == pytest.approx(sign * MODE, abs=0.06)
        spread = np.diff(np.quantile(mode, [0.1587, 0.8413]))[0] / 2
        assert spread < 0.5 * STD if name == "rti" else spread == pytest.approx(STD, rel=0.5)


@pytest.mark.slow
def test_beso_follows_its_goal_and_keeps_both_modes_without():
    state = trained("beso", 800, told=True)
    for goal in (1.0, -1.0):
        found = actions_of(programs("beso").method, state, goal)
        assert (np.abs(found - MODE * goal) < 0.35).mean() > 0.97
    free = make(replace(TINY["beso"], sampling_steps=15, guidance=0.0), GOALS)
    both_modes(actions_of(free, state, 1.0), 0.12)  # to begin at level 1 draws their shares together


@pytest.mark.slow
def test_diffusion_drive_follows_its_goal_and_draws_both_modes_of_calibrated_scores():
    """From anchors of the data; the first denoiser sees noised anchors, the second noised chunks."""
    focal = TINY["diffusion_drive"]
    even = replace(focal, noised="data", focal_gamma=0.0, focal_alpha=0.5, temperature=1.0)
    rows = rows_of(bandit(0, offsets_of(make(focal, GOALS))))
    state = trained("diffusion_drive", 500, told=True, config=focal, rows=rows)
    for goal in (1.0, -1.0):
        found = actions_of(make(focal, GOALS), state, goal)
        assert (np.abs(found - MODE * goal) < 0.35).mean() > 0.97
    found = actions_of(make(even, GOALS), trained("diffusion_drive", 500, config=even, rows=rows))
    assert (found > 0).mean() == pytest.approx(SHARE, abs=0.08)
    assert (np.abs(np.abs(found) - MODE) < 3 * STD).mean() > 0.97
