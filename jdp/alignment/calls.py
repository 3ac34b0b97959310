"""Network calls of an update, counted in its program: how many rows the denoiser is called on."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jdp.alignment.models import AnyModel, TokenModel
from jdp.types import Bound, Denoiser, Learner, Params, PyTree, bind

_NAME = "network call"


def _marked(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    return checkpoint_name(denoiser(x, sigma), _NAME)


def _marking(params: Params, condition: Array, *, of: Callable[[Params, Array], Denoiser]) -> Denoiser:
    return bind(_marked, of(params, condition))


def network_calls(make: Callable[[AnyModel], Learner], model: AnyModel, state: PyTree, batch: PyTree) -> int:
    """Rows on which an update of `make(model)` calls the denoiser, forwards; nothing is computed.

    Backward passes are not counted, nor calls that a condition may spare.
    """
    learner = make(model._replace(denoiser=Bound(_marking, (("of", model.denoiser),))))
    program = jax.make_jaxpr(learner.update)(jax.random.key(0), state, batch)
    return _counted(program.jaxpr, 2 if isinstance(model, TokenModel) else len(model.event))


def _counted(program: Any, axes: int) -> int:
    """`axes` are those of what a call says of one sample."""
    total = 0
    for step in program.eqns:
        if step.primitive.name == "name" and step.params["name"] == _NAME:
            total += math.prod(step.outvars[0].aval.shape[:-axes])
            continue
        inner = [_counted(one, axes) for one in _programs(step.params)]
        if step.primitive.name == "cond":
            inner = [max(inner, default=0)]
        total += sum(inner) * (step.params["length"] if step.primitive.name == "scan" else 1)
    return total


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs within a step: of a scan, a branch, a function."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one
