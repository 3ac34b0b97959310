"""Experts side by side: nothing goes from one to another, and each does what it does alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.devices import expert_mesh, split_experts
from jdp.diffusion import exact, losses
from jdp.diffusion.experts import routed
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.experts import RouterConfig, router_learner, routes, side_by_side
from jdp.loops import fit
from jdp.networks import NetworkConfig
from jdp.types import bind

K, B, T, D = 4, 8, 4, 2
KEY = jax.random.key(0)
DIFFUSER = trajectory_diffuser(NetworkConfig("mixer", 8, 1), DiffuserConfig(steps=10), T)
MESH = expert_mesh(K)  # four groups of two devices


def groups(line):
    """The sets of devices that a line of a compiled program, in any notation, lets speak together."""
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", line):
        return [[int(d) for d in part.split(",")] for part in re.findall(r"\{([\d,]+)\}", found[1])]
    if found := re.search(
        r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line
    ):  # named axes; those that speak
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", found[1]), strict=True)
        speak = [
            names.index(name) for name in re.findall(r"^'(\w+)'$", found[2].replace(",", "\n"), re.MULTILINE)
        ]
        assert len(speak) == len(found[2].split(",")), line
        devices = np.arange(len(jax.devices())).reshape([int(n) for n in sizes])
        return np.moveaxis(devices, speak, range(-len(speak), 0)).reshape(
            -1, np.prod(np.take(devices.shape, speak))
        )
    found = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    assert found, line
    shape, dims = ([int(n) for n in part.split(",")] for part in found.groups()[:2])
    devices = np.arange(np.prod(dims)).reshape(dims)
    if found[3]:
        devices = devices.transpose([int(n) for n in found[3].split(",")])
    return devices.reshape(shape)


WORDS = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"


def conversations(jitted, *args):
    """The sets of experts that some line of the compiled program lets speak to one another."""
    text = jitted.lower(*args).compile().as_text()
    lines = [line for line in text.splitlines() if re.search(rf" (?:{WORDS})(?:-start)?\(", line)]
    expert = {device.id: k for k, row in enumerate(MESH.devices) for device in row}
    return [{expert[int(device)] for device in group} for line in lines for group in groups(line)]


def stacked(count=K):
    init = jax.jit(jax.vmap(DIFFUSER.learner.init, in_axes=(0, None)))
    return init(jax.random.split(KEY, count), jnp.zeros((1, T, D)))


def test_a_training_step_of_experts_holds_no_collective_over_them():
    batches, states = jax.random.normal(KEY, (K, B, T, D)), stacked()
    together = jax.jit(side_by_side(DIFFUSER.learner.update, MESH))
    talks = conversations(together, KEY, states, batches)
    assert talks, "the two devices of an expert share its batch, so they must speak"
    assert all(len(experts) == 1 for experts in talks)
    mean = jax.jit(lambda x: split_experts(x, MESH) - jnp.mean(split_experts(x, MESH), axis=0, keepdims=True))
    assert any(len(experts) > 1 for experts in conversations(mean, batches))  # such a line would be seen
    new, metrics = together(KEY, states, batches)
    placed = {tuple(leaf.sharding.spec) for leaf in jax.tree.leaves(new.params)}
    assert all(spec[0] == "expert" for spec in placed)
    # Each is what it is alone, in a program and on a device of its own.
    update = jax.jit(DIFFUSER.learner.update)
    for k, key in enumerate(jax.random.split(KEY, K)):
        place = jax.devices()[2 * k]
        own = jax.device_put(jax.tree.map(lambda leaf, k=k: leaf[k], states), place)
        alone, loss = update(key, own, batches[k])
        assert all(leaf.devices() == {place} for leaf in jax.tree.leaves(alone))
        np.testing.assert_allclose(metrics["loss"][k], loss["loss"], rtol=1e-5)
        # After a step of Adam from 0 its first moments are a tenth of the gradients.
        moments = [jax.tree.leaves(of.opt_state[0].mu) for of in (alone, new)]
        largest = max(float(jnp.abs(leaf).max()) for leaf in moments[0])
        for a, b in zip(*moments, strict=True):
            np.testing.assert_allclose(b[k], a, rtol=1e-5, atol=1e-5 * largest)


def test_groups_of_devices_divide_the_experts():
    assert expert_mesh(6).devices.shape == (2, 4)
    assert expert_mesh(16).devices.shape == (8, 1)
    assert expert_mesh(4, jax.devices()[:1]) is None


WEIGHTS, STDS = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.2, 0.25])
MEANS = np.array([[-1.2, -0.8], [1.1, -0.6], [0.2, 1.3]])


def draw(key, which):
    noise = jax.random.normal(key, (len(which), 2))
    return (jnp.asarray(MEANS, jnp.float32)[which] + jnp.asarray(STDS, jnp.float32)[which][:, None] * noise)[
        :, None
    ]


@pytest.mark.slow
def test_experts_trained_apart_are_the_monolith_at_equal_operations():
    """Held-out loss of a routed ensemble, each expert on a third of the batch, against one network's."""
    steps, batch = 800, 96
    network, config = NetworkConfig("mixer", 32, 2), DiffuserConfig(steps=steps, learning_rate=5e-3, ema=0.99)
    diffuser, settings = trajectory_diffuser(network, config, 1), RouterConfig((64,), steps=500, ema=0.99)

    def train(update, pick, state, key):
        return fit(
            update,
            pick,
            state,
            (),
            key=jax.random.key(key),
            stop=500 if pick is labelled else steps,
            chunk=500,
        )

    def of_all(key, data):
        where, noise = jax.random.split(key)
        return draw(noise, jax.random.categorical(where, jnp.log(jnp.asarray(WEIGHTS)), shape=(batch,)))

    def of_parts(key, data):
        keys = jax.random.split(key, 3)
        return jnp.stack([draw(own, np.full(batch // 3, k)) for k, own in enumerate(keys)])

    def labelled(key, data):
        where, noise = jax.random.split(key)
        which = jax.random.categorical(where, jnp.log(jnp.asarray(WEIGHTS)), shape=(batch,))
        return draw(noise, which), which

    first = jnp.zeros((1, 1, 2))
    init = jax.jit(diffuser.learner.init)
    one = train(diffuser.learner.update, of_all, init(KEY, first), 1)
    own = jax.jit(jax.vmap(diffuser.learner.init, in_axes=(0, None)))(jax.random.split(KEY, 3), first)
    many = train(side_by_side(diffuser.learner.update), of_parts, own, 2)
    guide = router_learner(None, 3, settings)
    router = routes(
        train(guide.update, labelled, jax.jit(guide.init)(KEY, (first, jnp.zeros(1, int))), 3), 3, settings
    )
    members = [diffuser.denoiser(jax.tree.map(lambda leaf, k=k: leaf[k], many)) for k in range(3)]
    x0 = jnp.concatenate([of_all(jax.random.key(9 + i), ()) for i in range(40)])
    sigma = losses.log_normal_levels(jax.random.key(8), len(x0), x0.dtype, p_mean=-1.2, p_std=1.2)
    x = x0 + sigma[:, None, None] * jax.random.normal(jax.random.key(7), x0.shape)
    weight = (jnp.square(sigma) + 1) / jnp.square(sigma)

    @jax.jit
    def held_out(denoiser):
        return jnp.mean(weight[:, None, None] * jnp.square(denoiser(x, sigma) - x0))

    monolith, ensemble = held_out(diffuser.denoiser(one)), held_out(routed(members, router))
    best = held_out(bind(_flat, exact.mixture(WEIGHTS, MEANS, STDS)))
    assert best < monolith and best < ensemble < 1.1 * monolith


def _flat(denoiser, x, sigma):
    return denoiser(x[:, 0], sigma)[:, None]
