"""What a run has learned offline, as the beginning of a run that learns online."""

import jax

from jdp.data.checks import check_same_task
from jdp.errors import UserError
from jdp.online.continued import core
from jdp.runs.load import LoadedRun
from jdp.runs.models import state_like
from jdp.types import Method, PyTree, Spec


def learned_offline(run: LoadedRun, method: Method, spec: Spec, seeds: int) -> PyTree:
    """The states `[S, ...]` of the first `seeds` = S training seeds of `run`, as `method` has them online.

    Raises:
        UserError: if it is of another task, has fewer seeds or several agents, or other networks.
    """
    check_same_task(str(run.path), run.spec, spec)
    if (known := run.config["seeds"]) < seeds:
        raise UserError(f"{run.path} has {known} training seeds: give --seeds {known}, or fewer")
    if len(run.states) != 1:
        raise UserError(f"{run.path} has several agents ({', '.join(run.states)}): give a run of one")
    (states,) = run.states.values()
    found = jax.tree.map(lambda x: x[:seeds], core(states))
    wanted = state_like(method.learner, spec, seeds)
    shapes, like = ([x.shape for x in jax.tree.leaves(tree)] for tree in (found, wanted))
    if jax.tree.structure(found) != jax.tree.structure(wanted) or shapes != like:
        raise UserError(f"the networks of {run.name} in {run.path} are of another kind than those online")
    return found
