"""A linear-Gaussian system, and ensembles of its dynamics, fresh and trained."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data import batches as batches_of
from jdp.loops.fit import fit
from jdp.types import Spec, Transition, pack
from jdp.world_models.bootstrap import Bootstrapped, bootstrap
from jdp.world_models.ensemble import EnsembleConfig, ensemble
from jdp.world_models.termination import never
from jdp.world_models.training import split_holdout, train

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = EnsembleConfig(
    members=4, elites=2, hidden=(32,), decay=(0.0,), learning_rate=3e-3, batch_size=64, epochs=10
)

# s' = s + A s + B a + noise, in units far from 1 and from each other
A = np.array([[-0.3, 0.1, 0.0], [0.0, -0.2, 0.02], [1.0, 0.0, -0.5]], np.float32)
B = np.array([[0.5, 0.0], [0.2, 0.3], [0.0, 4.0]], np.float32)
REWARD = np.array([1.0, -2.0, 0.1], np.float32), np.array([0.5, 0.5], np.float32)
SCALE = np.array([1.0, 1.0, 10.0], np.float32)
OFFSET = np.array([5.0, 0.0, -20.0], np.float32)
NOISE = np.array([0.2, 0.1, 1.0, 0.5], np.float32)  # stds of the next observation and the reward


def means(observation, action):
    centred = observation - OFFSET
    following = observation + centred @ A.T + action @ B.T
    return np.concatenate([following, (centred @ REWARD[0] + action @ REWARD[1])[:, None]], axis=1)


def system(seed, rows):
    rng = np.random.default_rng(seed)
    observation = (OFFSET + SCALE * rng.normal(size=(rows, 3))).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    made = (means(observation, action) + NOISE * rng.normal(size=(rows, 4))).astype(np.float32)
    terminal = (observation[:, 0] > OFFSET[0] + 0.5).astype(np.float32)
    return Transition(observation, action, made[:, 3], made[:, :3], terminal)


def taken(data, rows):
    return Transition(*(jnp.asarray(field[rows]) for field in data[:5]))


def fitter(config, rule, training, key):
    """A `fit_epoch` of `train`, as an experiment makes it."""
    keys = jax.random.split(key)
    model = ensemble(config, SPEC, rule)
    table = bootstrap(keys[0], len(training.reward), config.members)
    data = Bootstrapped(pack(training), table)
    draw = batches_of(model.learner.draws, config.batch_size)
    return lambda state, start, stop: fit(
        model.learner.update, draw, state, data, key=keys[1], start=start, stop=stop, batch_axis=1
    )


def trained(config, rule, rows=8000, seed=0):
    data = system(seed, rows)
    keys = jax.random.split(jax.random.key(seed), 3)
    kept, held = split_holdout(keys[0], rows, config)
    training, holdout = taken(data, kept), taken(data, held)
    state = jax.jit(ensemble(config, SPEC, rule).learner.init)(keys[1], training)
    fit_epoch = fitter(config, rule, training, keys[2])
    return train(state, fit_epoch, holdout, rows=len(kept), config=config, spec=SPEC, rule=rule)


def fresh(config=CONFIG, rule=never, seed=0, rows=100):
    return ensemble(config, SPEC, rule).learner.init(
        jax.random.key(seed), taken(system(seed, rows), np.arange(rows))
    )


def predictor(config):
    predict = ensemble(config, SPEC, never).predict
    assert predict is not None
    return jax.jit(predict)


def batches(seed, members=CONFIG.members, rows=16):
    return jax.tree.map(
        lambda x: x.reshape(members, rows, *x.shape[1:]),
        taken(system(seed, members * rows), np.arange(members * rows)),
    )
