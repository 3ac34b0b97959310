"""N-PG-IGT and HARPG: what their memory holds on quadratics, and the Hessian of a Gaussian policy by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp.learning import policy_gradients as pg

CURVATURE = np.linspace(0.1, 2.0, 10).astype(np.float32)
LENGTH, SHARE = pg.decayed(0.3, 0.25), pg.decayed(1.0, 0.5)
STEPS = 150


def descent(kind, noise):
    """Errors `[STEPS, 10]` of the estimate of the gradient of `x . C x / 2`, given noise of that shape."""
    start = jnp.full(10, 3.0)
    found = pg.transported(LENGTH, SHARE) if kind == "igt" else pg.momentum(LENGTH, SHARE)

    def step(carry, fresh):
        x, state = carry
        if kind == "harpg":  # the Hessian without noise
            state = pg.corrected(state, CURVATURE * state.moved)
        here = pg.themselves(x, state, SHARE) if kind == "igt" else x
        update, state = found.update(CURVATURE * x + fresh, state)
        return (optax.apply_updates(x, update), state), state.direction - CURVATURE * here

    return jax.lax.scan(step, (start, found.init(start)), noise)[1]


def test_on_a_quadratic_the_memory_errs_by_the_noise_alone_and_less_than_momentum():
    noise = np.random.default_rng(0).normal(size=(STEPS, 10)).astype(np.float32)
    run = jax.jit(descent, static_argnums=0)
    errors = {kind: np.array(run(kind, noise)) for kind in ("momentum", "igt", "harpg")}
    share, mean = np.array(SHARE(np.arange(STEPS))), np.zeros(10)
    for t in range(STEPS):  # of past noise, whatever the path: no bias is left
        mean = (1 - share[t]) * mean + share[t] * noise[t]
        np.testing.assert_allclose(errors["igt"][t], mean, atol=2e-4)
        np.testing.assert_allclose(errors["harpg"][t], mean, atol=2e-4)
    size = {kind: np.linalg.norm(found, axis=1).mean() for kind, found in errors.items()}
    assert max(size["igt"], size["harpg"]) < size["momentum"]
    clean = np.array(run("igt", np.zeros_like(noise)))
    assert np.abs(clean).max() < 1e-4 < np.abs(np.array(run("momentum", np.zeros_like(noise)))).max()


def test_steps_have_their_length_and_a_gradient_of_nothing_moves_nothing():
    tree = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    found = pg.momentum(pg.decayed(0.5, 1.0), pg.decayed(1.0, 1.0))
    update, state = found.update(tree, found.init(tree))
    np.testing.assert_allclose(update["a"], [-0.3, 0], rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(found.update(tree, state)[0]), 0.5 * 2 / 3, rtol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, tree)
    assert not any(np.any(x) for x in jax.tree.leaves(found.update(zero, found.init(tree))[0]))
    plain = pg.momentum(pg.decayed(0.5, 1.0), pg.decayed(1.0, 1.0), normalise=False)
    np.testing.assert_allclose(plain.update(tree, plain.init(tree))[0]["b"], [[-2.0]])


def score(theta, a):
    """Gradients `[B, 2, 2]` in `(m, s)` of `ln N(a; m, e^s)` for actions `[B, 2]` of two steps, by hand."""
    z = (a - theta[0]) / np.exp(theta[1])
    return np.stack([z / np.exp(theta[1]), z**2 - 1], axis=-1)


def curvature(theta, a):
    z, s = (a - theta[0]) / np.exp(theta[1]), np.exp(theta[1])
    rows = [[np.full_like(z, -1 / s**2), -2 * z / s], [-2 * z / s, -2 * z**2]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def jax_parts(actions, gain):
    """The policy gradient `sum_t gain_t grad ln pi(a_t)` of trajectories `[B, 2]`, and their densities."""

    def terms(theta):
        return -0.5 * jnp.square((actions - theta[0]) / jnp.exp(theta[1])) - theta[1]

    def gradient(theta, weight):
        surrogate = lambda at: jnp.mean(weight * jnp.sum(gain * terms(at), axis=1))  # noqa: E731
        return jax.grad(surrogate)(theta)

    return gradient, lambda theta: jnp.sum(terms(theta), axis=1)


def test_the_hessian_of_a_gaussian_policy_is_that_found_by_hand():
    rng = np.random.default_rng(1)
    actions, gain = rng.normal(size=(2, 7, 2)).astype(np.float32)
    theta, way = np.array([0.3, -0.2], np.float32), np.array([0.7, -1.1], np.float32)
    s, h = score(theta, actions), curvature(theta, actions)
    along = s.sum(1) @ way  # of the whole trajectory: the importance term
    by_hand = np.mean(
        [
            sum(gain[b, t] * (s[b, t] * along[b] + h[b, t] @ way) for t in range(2))
            for b in range(len(actions))
        ],
        axis=0,
    )
    found = pg.hessian_vector(*jax_parts(actions, gain), jnp.asarray(theta), jnp.asarray(way))
    np.testing.assert_allclose(found, by_hand, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("m", [0.0, 0.5])
def test_its_mean_is_the_hessian_of_the_return(m):
    """`E[a_1^2 + a_1 a_2]` is `m^2 + e^2s + m^2`, by Gauss and Hermite's rule instead of samples."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(8)
    s, weight = -0.2, np.outer(mass, mass).reshape(-1) / mass.sum() ** 2
    actions = (m + np.exp(s) * np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1)).reshape(-1, 2)
    later = actions[:, 0] * actions[:, 1]  # what follows the second action
    gain = np.stack([actions[:, 0] ** 2 + later, later], axis=1) * weight[:, None] * len(weight)
    parts = jax_parts(*(x.astype(np.float32) for x in (actions, gain)))
    exact = np.array([[4.0, 0.0], [0.0, 4 * np.exp(2 * s)]])
    for way in np.eye(2, dtype=np.float32):
        found = pg.hessian_vector(*parts, jnp.array([m, s], jnp.float32), jnp.asarray(way))
        np.testing.assert_allclose(found, exact @ way, atol=2e-4)
