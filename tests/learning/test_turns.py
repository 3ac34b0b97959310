"""Levels that learn in turns: who stands stands still, and both come to the joint optimum of a bandit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdp.finetune.advantages import macro_micro
from jdp.learning.optimiser import begin, step
from jdp.learning.turns import in_turns, whose

EVERY = 2
ADAM = optax.adam(0.1)
BOTH = in_turns({"planner": ADAM, "executor": ADAM}, EVERY)


def test_while_one_level_moves_the_others_and_their_optimisers_stand():
    params = {"planner": jnp.zeros(2), "executor": jnp.zeros(3)}
    gradient = {"planner": jnp.ones(2), "executor": -jnp.ones(3)}
    trained, alone = begin(BOTH, params), begin(ADAM, params["planner"])
    once = jax.jit(
        lambda trained: begin(BOTH, params)._replace(
            **dict(
                zip(
                    ("params", "optimiser"),
                    step(BOTH, gradient, trained.optimiser, trained.params),
                    strict=True,
                )
            )
        )
    )
    for count in range(3 * EVERY):
        after = once(trained)
        turn = int(whose(jnp.asarray(count), 2, EVERY))
        for i, name in enumerate(params):
            assert np.any(after.params[name] != trained.params[name]) == (turn == i)
            if turn != i:
                jax.tree.map(
                    np.testing.assert_array_equal,
                    after.optimiser.levels[name],
                    trained.optimiser.levels[name],
                )
        if turn == 0:  # as if the others' updates had never been
            alone = alone._replace(
                **dict(
                    zip(
                        ("params", "optimiser"),
                        step(ADAM, gradient["planner"], alone.optimiser, alone.params),
                        strict=True,
                    )
                )
            )
        np.testing.assert_allclose(after.params["planner"], alone.params, rtol=1e-5)
        trained = after


PAYOFF = jnp.array([[0.2, 0.3, 0.2], [0.0, 0.1, 1.0], [0.5, 0.4, 0.3]])  # of plans and executions
PLANS, EXECUTIONS = 8, 8


def test_a_bandit_of_two_levels_comes_to_its_joint_optimum():
    """Executed by chance another plan is the best."""
    assert np.argmax(PAYOFF.mean(1)) != np.argmax(PAYOFF.max(1))

    def loss(params, key):
        keys = jax.random.split(key, 3)
        plans = jax.random.categorical(keys[0], params["planner"], shape=(PLANS,))
        logits = params["executor"][plans]
        moves = jax.random.categorical(keys[1], logits[:, None], shape=(PLANS, EXECUTIONS))
        macro, micro = macro_micro(PAYOFF[plans[:, None], moves])
        chosen = jax.nn.log_softmax(params["planner"])[plans]
        done = jnp.take_along_axis(jax.nn.log_softmax(logits), moves, axis=1)
        return -jnp.mean(macro * chosen) - jnp.mean(micro * done)

    def learn(key):
        params = {"planner": jnp.zeros(3), "executor": jnp.zeros((3, 3))}

        def one(trained, key):
            gradient = jax.grad(loss)(trained.params, key)
            return type(trained)(*step(BOTH, gradient, trained.optimiser, trained.params)), None

        return jax.lax.scan(one, begin(BOTH, params), jax.random.split(key, 400))[0].params

    found = jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), 5))
    planned, done = jax.nn.softmax(found["planner"]), jax.nn.softmax(found["executor"])
    expected = jnp.einsum("sp,spe,pe->s", planned, done, PAYOFF)
    assert np.all(expected > 0.99)  # of 5 seeds
