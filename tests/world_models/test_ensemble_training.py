"""How an ensemble is trained: snapshots, elites, the holdout, and going on after an epoch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_system import CONFIG, SPEC, fitter, fresh, predictor, system, taken

from jdp import UserError
from jdp.world_models.ensemble import ensemble
from jdp.world_models.termination import never
from jdp.world_models.training import (
    epoch_updates,
    finished,
    holdout_errors,
    keep_best,
    split_holdout,
    train,
    validation,
)


def leaf(params):
    return np.asarray(params["low"])[:, 0]


def with_params(state, value):
    return state._replace(params=jax.tree.map(lambda p: jnp.full_like(p, value), state.params))


def test_members_keep_their_best_and_the_lowest_are_elites():
    config = replace(CONFIG, improvement=0.1, patience=2)
    state = fresh(config)

    def epoch(state, value, errors):
        return keep_best(with_params(state, value), jnp.asarray(errors, jnp.float32), config=config)

    state = epoch(state, 1.0, [4.0, 3.0, 2.0, np.nan])
    np.testing.assert_array_equal(leaf(state.best)[:3], 1)
    assert leaf(state.best)[3] == -10 and np.isinf(state.best_error[3])  # diverged: never copied
    np.testing.assert_array_equal(state.elites, [2, 1])
    assert int(state.stale) == 0 and int(state.epoch) == 1
    # Member 1 got better by too little, member 2 worse; member 0 became the best.
    state = epoch(state, 2.0, [1.0, 2.8, 5.0, np.inf])
    np.testing.assert_array_equal(leaf(state.best), [2, 1, 1, -10])
    np.testing.assert_array_equal(state.best_error, [1, 3, 2, np.inf])
    np.testing.assert_array_equal(state.elites, [0, 2])
    assert int(state.stale) == 0 and not finished(state, config)
    np.testing.assert_array_equal(leaf(state.params), 2)  # training goes on from where it was
    state = epoch(state, 3.0, [1.0, 3.0, 2.0, np.nan])
    assert int(state.stale) == 1 and not finished(state, config)
    state = epoch(state, 4.0, [1.0, 3.0, 2.0, np.nan])
    assert int(state.stale) == 2 and finished(state, config)
    np.testing.assert_array_equal(leaf(state.best), [2, 1, 1, -10])
    assert int(epoch(state, 5.0, [0.8, 3.0, 2.0, np.nan]).stale) == 0
    assert finished(fresh(config)._replace(epoch=jnp.int32(400)), config)


def test_validation_measures_the_means_on_the_holdout_and_shares_no_buffer():
    state = fresh(seed=1)
    holdout = taken(system(2, 50), np.arange(50))
    errors = holdout_errors(state, holdout, config=CONFIG, spec=SPEC, rule=never)
    after = jax.jit(validation(CONFIG, SPEC, never))(state, holdout)
    np.testing.assert_allclose(after.best_error, errors, rtol=1e-5)
    np.testing.assert_array_equal(after.elites, np.argsort(errors)[:2])
    # The untrained networks predict, so their errors in the units of the task are known too.
    everyone = state._replace(elites=jnp.arange(4))
    all_config = replace(CONFIG, elites=4)
    said = predictor(all_config)(everyone, holdout.observation, holdout.action)
    true = np.concatenate([holdout.next_observation, holdout.reward[:, None]], axis=1)
    off = (np.asarray(said.mean) - true) / np.asarray(state.targets.std)
    np.testing.assert_allclose(errors, np.mean(off**2, axis=(1, 2)), rtol=1e-3)
    eager = ensemble(CONFIG, SPEC, never).learner.init(jax.random.key(0), holdout)
    for s in (state, eager, after):
        places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(s)]
        assert len(places) == len(set(places))


def test_the_holdout_is_disjoint_from_training():
    config = replace(CONFIG, holdout_share=0.2, holdout_limit=100)
    for count, held_rows in ((400, 80), (1000, 100), (128, 25)):
        kept, held = split_holdout(jax.random.key(0), count, config)
        assert len(held) == held_rows
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(count))
    other = split_holdout(jax.random.key(1), 128, config)[1]
    assert not np.array_equal(held, other)
    assert epoch_updates(6400, CONFIG) == 100 and epoch_updates(6401, CONFIG) == 101


def test_training_goes_on_bit_for_bit_after_an_epoch():
    config = replace(CONFIG, epochs=3)
    data = taken(system(5, 500), np.arange(500))
    training, holdout = (jax.tree.map(lambda x, s=s: x[s], data) for s in (slice(400), slice(400, None)))
    fit_epoch = fitter(config, never, training, jax.random.key(3))

    def run(state, after=None):
        return train(state, fit_epoch, holdout, rows=400, config=config, spec=SPEC, rule=never, after=after)

    saved = []
    whole = run(fresh(config), after=lambda s: saved.append(jax.tree.map(np.array, s)))
    assert [int(s.epoch) for s in saved] == [1, 2, 3]
    again = run(jax.tree.map(jnp.asarray, saved[0]))
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    jax.tree.map(np.testing.assert_array_equal, whole, run(again))  # nothing is left to do


def test_an_ensemble_that_diverged_is_no_model():
    config = replace(CONFIG, epochs=2)

    def fit_epoch(state, start, stop):
        return with_params(state, jnp.nan)

    with pytest.raises(UserError, match=r"0 of 4 members ever had a finite.*lower ensemble.learning_rate"):
        holdout = taken(system(0, 8), np.arange(8))
        train(fresh(config), fit_epoch, holdout, rows=64, config=config, spec=SPEC, rule=never)
