"""A batch in parts, and in bfloat16: the same gradient, and nearly the same loss."""

import dataclasses
import math
import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp.devices import check_divisible, data_mesh, split_batch
from jdp.errors import UserError
from jdp.learning.averaged import begin, descend, mean_gradient
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.plan_models import ModelConfig, model
from jdp.networks import NetworkConfig, ValueNetworkConfig, make, make_value
from jdp.networks.conditional_mlp import conditional_mlp

B, T, D = 16, 8, 5
NETWORK = NetworkConfig("mixer", 8, 1)
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def x0():
    return jax.random.normal(jax.random.key(0), (B, T, D))


def close(found, wanted, rtol=1e-5):
    """Leaves agree to `rtol` of the largest number of their tree."""
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * largest)


def adam_moment(state):
    """The first moment after one step from 0: a tenth of the gradient."""
    return next(part.mu for part in state.opt_state if hasattr(part, "mu"))


def stepped(x0, accumulate, mesh):
    """`(moment, loss, state before, text of the program)` of one update."""
    learner = trajectory_diffuser(NETWORK, DiffuserConfig(batch_size=B, accumulate=accumulate), T).learner
    state = jax.jit(learner.init)(jax.random.key(1), x0)
    step = jax.jit(lambda k, s, x: learner.update(k, s, split_batch(x, mesh)))
    compiled = step.lower(KEY, state, x0).compile()
    new, metrics = compiled(KEY, state, x0)
    assert int(new.step) == 1  # one step of the optimiser, whatever the number of parts
    return adam_moment(new), metrics["loss"], state, compiled.as_text()


def test_the_diffusers_gradient_does_not_depend_on_parts_or_devices(x0):
    """The noise of each row is drawn for the whole batch, so it is the same row by row."""
    whole, loss, state, _ = stepped(x0, 1, None)
    for accumulate, mesh in ((2, None), (2, data_mesh())):
        parts, found, _, text = stepped(x0, accumulate, mesh)
        close(parts, whole)
        np.testing.assert_allclose(found, loss, rtol=1e-5)
    # Each part lies on all devices: its products see B / parts / devices = 1 row of T steps.
    products = {tuple(map(int, s.split(","))) for s in re.findall(r"f32\[([\d,]+)\]\S* dot\(", text)}
    assert max(math.prod(shape) for shape in products) <= B // 2 // 8 * T * 16
    # and all are the gradient of the loss that is documented
    net, (level, noise) = make(NETWORK), jax.random.split(KEY, 2)
    sigma = jnp.exp(-1.2 + 1.2 * jax.random.normal(level, (B,)))[:, None, None]

    def exact(params):
        x = x0 + sigma * jax.random.normal(noise, x0.shape)
        c = 1 / jnp.sqrt(sigma**2 + 1)
        predicted = c**2 * x + sigma * c * net.apply(params, c * x, jnp.log(sigma[:, 0, 0]) / 4)
        return jnp.mean((sigma**2 + 1) / sigma**2 * (predicted - x0) ** 2)

    close(whole, jax.tree.map(lambda g: 0.1 * g, jax.jit(jax.grad(exact))(state.params)))


@pytest.mark.slow
def test_models_and_judges_of_plans_accumulate(x0):
    known = jnp.zeros((1, T, D), bool).at[:, 0].set(True)
    condition, target = jax.random.normal(jax.random.key(4), (B, 2)), x0[:, 0, 0]
    weight = jnp.linspace(0.5, 2.0, T * D).reshape(1, T, D)
    found = []
    for count in (1, 4):
        net = model(ModelConfig(NETWORK, accumulate=count))
        judge = critic(CriticConfig(ValueNetworkConfig("pooled", 8, 1), accumulate=count))
        state, value = (jax.jit(part.init)(KEY, x0, condition) for part in (net, judge))
        new, metrics = jax.jit(net.update)(KEY, state, x0, condition, known, weight)
        judged, more = jax.jit(judge.update)(KEY, value, x0, condition, known, target)
        found.append((adam_moment(new), metrics, adam_moment(judged), more))
    for part, whole in zip(found[1], found[0], strict=True):
        close(part, whole)


def test_mean_gradient_is_the_gradient_of_the_mean():
    """In closed form: of mean (w x - y)^2 it is 2 mean x (w x - y)."""
    x, y = jax.random.normal(KEY, (2, 12))

    def loss(w, x, y):
        error = jnp.mean(jnp.square(w * x - y))
        return error, {"loss": error}

    for count in (1, 2, 3, 12):
        gradient, metrics = mean_gradient(loss, jnp.float32(0.7), (x, y), count)
        np.testing.assert_allclose(gradient, 2 * jnp.mean(x * (0.7 * x - y)), rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], jnp.mean((0.7 * x - y) ** 2), rtol=1e-5)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        DiffuserConfig(accumulate=0)
    with pytest.raises(UserError, match="shortcut models do not accumulate"):
        ModelConfig(formulation="shortcut", accumulate=2)
    optimiser = optax.sgd(1.0)
    with pytest.raises(UserError, match="batch of 16 does not divide into 3"):
        descend(optimiser, begin(optimiser, jnp.zeros(())), lambda w, x: (w, {}), 0.9, (jnp.ones(16),), 3)
    check_divisible(32, data_mesh(), "--batch-size", 2)
    with pytest.raises(UserError, match=r"--batch-size 24 .* 8 devices x --accumulate 2: .* multiple of 16"):
        check_divisible(24, data_mesh(), "--batch-size", 2)


# --- bfloat16 -----------------------------------------------------------------------------------


@pytest.fixture
def mixed():
    """Flax's own norms mix bfloat16 with float32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def products(function, *args):
    """The types of all matrix products in `function`, those of inner programs too."""

    def walk(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn.invars[0].aval.dtype
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                yield from walk(inner)

    return list(walk(jax.make_jaxpr(function)(*args).jaxpr))


def dtypes(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize("kind", ["unet", "residual_unet", "diffuser_unet", "mixer", "transformer"])
def test_bfloat16_reaches_the_products_of_every_network(mixed, kind):
    x, c = jnp.zeros((2, T, D)), jnp.zeros((2, 3))
    net = make(NetworkConfig(kind, 8, 2), "bf16")
    params = jax.eval_shape(net.init, KEY, x, jnp.zeros(2), c)
    assert dtypes(params) == {jnp.dtype("float32")}
    found = products(net.apply, params, x, jnp.zeros(2), c)
    assert found.count(jnp.bfloat16) == len(found) - 1  # all but the last layer
    assert jax.eval_shape(net.apply, params, x, jnp.zeros(2), c).dtype == jnp.float32


@pytest.mark.parametrize("kind", ["pooled", "half_unet", "transformer"])
def test_bfloat16_reaches_the_judges(mixed, kind):
    x, c = jnp.ones((2, T, D)), jnp.ones((2, 3))
    net = make_value(ValueNetworkConfig(kind, 32, 2), "bf16")
    params = jax.eval_shape(net.init, KEY, x, jnp.zeros(2), c)
    found = products(net.apply, params, x, jnp.zeros(2), c)
    assert found.count(jnp.bfloat16) == len(found) - 1
    assert dtypes(params) == {jnp.dtype("float32")}
    assert jax.eval_shape(net.apply, params, x, jnp.zeros(2), c).dtype == jnp.float32


def test_bfloat16_reaches_the_networks_of_actions(mixed):
    x, c = jnp.zeros((2, 3)), jnp.zeros((2, 4))
    net = conditional_mlp(16, 2, precision="bf16")
    params = jax.eval_shape(net.init, KEY, x, jnp.zeros(2), c)
    found = products(net.apply, params, x, jnp.zeros(2), c)
    assert found.count(jnp.bfloat16) == len(found) - 1
    assert jax.eval_shape(net.apply, params, x, jnp.zeros(2), c).dtype == jnp.float32


def test_a_step_in_bfloat16_is_near_one_in_float32_and_leaves_float32(mixed, x0):
    losses = []
    for precision in ("float32", "bf16"):
        net = model(dataclasses.replace(ModelConfig(NETWORK), precision=precision))
        state = jax.jit(net.init)(KEY, x0, jnp.zeros((B, 0)))
        known, weight = jnp.zeros((1, T, D), bool), jnp.ones((1, 1, 1))
        state, metrics = jax.jit(net.update)(KEY, state, x0, jnp.zeros((B, 0)), known, weight)
        assert dtypes(state) == {jnp.dtype("float32")} and metrics["loss"].dtype == jnp.float32
        losses.append(float(metrics["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]
