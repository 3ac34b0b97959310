"""How an ensemble is trained: a holdout, the best snapshot of each member, when to stop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError
from jdp.types import Bound, Spec, Transition
from jdp.world_models.ensemble import EnsembleConfig, EnsembleState, member_network, standardised
from jdp.world_models.members import forward
from jdp.world_models.termination import Rule


def split_holdout(key: Array, count: int, config: EnsembleConfig) -> tuple[np.ndarray, np.ndarray]:
    """`(training rows, held out rows)` of `count` transitions, each sorted; on the host.

    Rows are held out, not episodes, so that a dataset of one long episode will do.

    Raises:
        UserError: if there are fewer than two batches of rows.
    """
    if count < 2 * config.batch_size:
        raise UserError(
            f"the dataset has {count} transitions, too few to train an ensemble in batches of "
            f"{config.batch_size} and hold some out: give ensemble.batch_size at most {count // 2}"
        )
    held = max(1, min(int(config.holdout_share * count), config.holdout_limit))
    order = np.asarray(jax.random.permutation(key, count))
    return np.sort(order[held:]), np.sort(order[:held])


def holdout_errors(
    state: EnsembleState, holdout: Transition, *, config: EnsembleConfig, spec: Spec, rule: Rule | None
) -> Array:
    """`[M]`, mean squared errors of the members' means of the standardised targets, as trained so far."""
    x, y = standardised(state, holdout)
    mean = forward(state.params, x, member_network(config, spec, rule)).mean
    return jnp.mean(jnp.square(mean - y[None]), axis=(1, 2))


def keep_best(state: EnsembleState, errors: Array, *, config: EnsembleConfig) -> EnsembleState:
    """Ends an epoch after which the members have holdout errors `errors` `[M]` (MBPO, its code).

    A member that improved is copied; where none did, the ensemble is staler by one epoch.
    """
    better = errors < (1 - config.improvement) * state.best_error  # never where it is NaN
    best_error = jnp.where(better, errors, state.best_error)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(better, tuple(range(1, new.ndim))), new, old)

    return state._replace(
        best=jax.tree.map(choose, state.params, state.best),
        best_error=best_error,
        elites=jnp.argsort(best_error)[: config.elites].astype(jnp.int32),
        stale=jnp.where(jnp.any(better), 0, state.stale + 1),
        epoch=state.epoch + 1,
    )


def _validate(
    state: EnsembleState, holdout: Transition, *, config: EnsembleConfig, spec: Spec, rule: Rule | None
) -> EnsembleState:
    errors = holdout_errors(state, holdout, config=config, spec=spec, rule=rule)
    return keep_best(state, errors, config=config)


def validation(config: EnsembleConfig, spec: Spec, rule: Rule | None) -> Bound:
    """`validate(state, holdout) -> state`, pure: compares, copies and ranks members after an epoch."""
    return Bound(_validate, (("config", config), ("rule", rule), ("spec", spec)))


def epoch_updates(rows: int, config: EnsembleConfig) -> int:
    """Updates of one epoch over `rows` training rows: every member sees as many."""
    return -(-rows // config.batch_size)


def finished(state: EnsembleState, config: EnsembleConfig) -> bool:
    """Whether training is over: no member improved for long enough, or the epochs are used up."""
    return int(state.stale) >= config.patience or int(state.epoch) >= config.epochs


def train(
    state: EnsembleState,
    fit_epoch: Callable[[EnsembleState, int, int], EnsembleState],
    holdout: Transition,
    *,
    rows: int,
    config: EnsembleConfig,
    spec: Spec,
    rule: Rule | None,
    after: Callable[[EnsembleState], None] | None = None,
) -> EnsembleState:
    """Epochs of training and validation until `finished`.

    A state that was saved by `after` goes on where it was, and, if `fit_epoch` makes update `i` always
    the same, to the same end.

    Args:
        state: of `ensemble(config, spec, rule)`.
        fit_epoch: `(state, start, stop) -> state` makes the updates `start .. stop - 1`, for instance
            by `jdp.loops.fit`; it may donate the state.
        holdout: rows that no update sees, `[H, ...]`.
        rows: how many rows updates draw from.
        after: called after each epoch; it must not keep the state.

    Raises:
        UserError: if fewer members than are to predict ever had a finite holdout error.
    """
    validate = jax.jit(validation(config, spec, rule))
    updates = epoch_updates(rows, config)
    while not finished(state, config):
        epoch = int(state.epoch)
        state = fit_epoch(state, epoch * updates, (epoch + 1) * updates)
        state = validate(state, holdout)
        if after is not None:
            after(state)
    healthy = int(jnp.sum(jnp.isfinite(state.best_error)))
    if healthy < config.elites:
        raise UserError(
            f"the ensemble diverged: {healthy} of {config.members} members ever had a finite holdout error; "
            f"lower ensemble.learning_rate ({config.learning_rate})"
        )
    return state
