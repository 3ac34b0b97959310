"""Rewards in closed form, and what is said of those that cannot be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.alignment import problems, rewards
from jdp.alignment.bases import judged_by
from jdp.errors import UserError

PLANS = jnp.array(
    [[[0.0, 0.0, 3.0, 4.0], [1.0, 0.0, 0.6, 0.8]], [[5.0, 5.0, 0.0, 0.0], [9.0, 0.0, 0.0, 2.0]]]
)
ACTIONS, GOALS = jnp.full((2, 2, 2), 0.5), jnp.zeros((2, 2))


def test_built_in_rewards_are_what_they_say():
    plans = PLANS, ACTIONS, GOALS
    np.testing.assert_allclose(rewards.Avoid((1.0, 0.0), 2.0)(*plans), [-1.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(rewards.Avoid((3.0, 0.0), 4.0)(*plans), [-0.5, 0.0], atol=1e-5)
    np.testing.assert_allclose(rewards.Arrive(rows=2)(*plans), [-3.0, -1.0], atol=1e-5)
    np.testing.assert_allclose(rewards.Arrive(rows=1)(*plans), [-1.0, -2.0], atol=1e-5)
    np.testing.assert_allclose(rewards.Steady(entry=0)(*plans), [-0.25, -4.0])
    np.testing.assert_allclose(rewards.Gentle()(*plans), [-0.25, -0.25])
    q = rewards.valued(jax.tree_util.Partial(lambda o, a: o[:, 0] + 2 * a[:, 0]))
    np.testing.assert_allclose(q(*plans), [1.5, 8.0])
    np.testing.assert_allclose(q(PLANS[:, 0], ACTIONS, GOALS), [1.0, 6.0])


@pytest.mark.parametrize(
    ("reward", "arguments", "word"),
    [
        (rewards.Avoid(), (PLANS[:, 0], ACTIONS, GOALS), "avoid judges plans"),
        (rewards.Steady(), (PLANS, ACTIONS, GOALS), r"steady: observations have no entries \(5,\), but 4"),
        (rewards.Gentle(), (PLANS, ACTIONS[:, :0], GOALS), "plans hold states alone"),
        (
            rewards.valued(jax.tree_util.Partial(lambda o, a: o)),
            (PLANS, ACTIONS[:, :0], GOALS),
            "states alone",
        ),
    ],
)
def test_what_a_reward_cannot_judge_it_says(reward, arguments, word):
    with pytest.raises(UserError, match=word):
        reward(*arguments)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("x[:, 0] / 0", "is not finite: .* of 8 first samples"),
        ("x", r"has the shape \(8, 2\): give one number a sample"),
        ("__import__('numpy').asarray(x)[:, 0]", "cannot be computed .* give a function of jax arrays"),
        ("x.no_such_thing", "cannot be computed .*AttributeError"),
    ],
)
def test_a_reward_of_a_user_is_checked_on_a_first_draw(tmp_path, body, word):
    file = tmp_path / "mine.py"
    file.write_text(f"def reward(x, condition):\n    return {body}\n")
    base = problems.problem(jax.random.key(0), "linear").base
    judge = judged_by(base, rewards.loaded(f"{file}:reward"))

    class Drawn:
        def sample(self, key, params, condition):
            return jnp.ones((len(condition), 2)) if "/" not in body else jnp.zeros((len(condition), 2))

    with pytest.raises(UserError, match=word):
        rewards.check_reward(jax.random.key(1), Drawn(), (), judge, jnp.zeros((1, 0)))  # type: ignore[arg-type]


def test_what_is_no_reward_gets_one_line(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("1 +")
    for source, word in {
        "avod": "choose one of avoid, arrive, steady, gentle, critic",
        f"{tmp_path}/no.py:reward": "there is no file",
        f"{bad}:reward": "cannot be imported \\(SyntaxError",
        "no_such_module:reward": "cannot be imported \\(ModuleNotFoundError",
        "math:no_such": "there is no no_such in math",
    }.items():
        with pytest.raises(UserError, match=word):
            rewards.loaded(source)
