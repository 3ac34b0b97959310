"""Mixed values of agents: they rise in each agent's own, and hold what independent learners miss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdp.learning.mixing import Mixer, together
from jdp.learning.optimiser import begin, step

KEY = jax.random.key(0)


def test_the_mixture_falls_in_nobodys_value():
    mixer, state = Mixer(agents=3, hidden=8), jax.random.normal(KEY, (64, 4))
    params = mixer.init(jax.random.key(1), state)
    values = 3 * jax.random.normal(jax.random.key(2), (64, 3))
    slopes = jax.jit(jax.grad(lambda v: jnp.sum(mixer.mix(params, v, state))))(values)
    assert np.all(slopes >= 0) and np.any(slopes > 0.01)
    moved = jax.jit(mixer.mix)(params, values, 2 * state)
    assert np.abs(moved - mixer.mix(params, values, state)).max() > 0.1  # the state has a say


# QMIX's two-step game: the first agent leads to a room where all is worth 7, or to one that asks for both.
PAYOFF = np.array([[[7.0, 7.0], [7.0, 7.0]], [[0.0, 1.0], [1.0, 8.0]]], np.float32)


def test_two_agents_find_the_optimum_that_independent_ones_miss():
    room, first, second = (x.reshape(-1) for x in np.indices((2, 2, 2)))
    state, wanted, mixer = np.eye(2, dtype=np.float32)[room], PAYOFF.reshape(-1), Mixer(2, 8)

    def loss(params):
        own = params["own"][room]  # [8, agent, choice]
        values = jnp.stack([own[np.arange(8), 0, first], own[np.arange(8), 1, second]], axis=1)
        return jnp.mean(jnp.square(mixer.mix(params["mixer"], values, state) - wanted))

    adam = optax.adam(0.03)

    @jax.jit
    def learn():
        start = begin(adam, {"own": jnp.zeros((2, 2, 2)), "mixer": mixer.init(KEY, state)})

        def one(trained, _):
            gradient = jax.grad(loss)(trained.params)
            return type(trained)(*step(adam, gradient, trained.optimiser, trained.params)), None

        params = jax.lax.scan(one, start, None, length=400)[0].params
        choice = together(params["own"])
        best = jnp.take_along_axis(params["own"], choice[..., None], axis=2)[..., 0]
        return choice, mixer.mix(params["mixer"], best, jnp.eye(2))

    choice, value = learn()
    assert np.argmax(value) == 1 and PAYOFF[1][tuple(choice[1])] == 8
    alone = np.stack([PAYOFF.mean(2), PAYOFF.mean(1)], axis=1)  # what each sees of the other's chance
    assert np.argmax(alone.max(2).mean(1)) == 0  # and so they go where all is worth 7
