"""Residual branches of networks: recorded as they are computed, or taken from an earlier call.

A module marks a method as a branch by `@branch(kind)`, and makes all submodules of its branches before it
calls the first one (else their names, which count, would depend on which branches run). Then any network,
and any denoiser around one, gives and takes the branches' outputs with its own signature:

    with branches() as met:
        first = denoiser(x, sigma)
    with branches([True, False], met.outputs):  # the second branch is not computed
        second = denoiser(x, sigma)

This is flax's interception of methods. Whatever is traced within, is traced with it; so the network must not
be called inside of a `jax.grad`, `jax.vmap` or `lax.scan` there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
from jax import Array

from jdp.errors import UserError

Kind = Literal["attention", "feed_forward"]
F = TypeVar("F", bound=Callable[..., Array])
_MARK = "residual_branch"


def branch(kind: Kind) -> Callable[[F], F]:
    """Marks a method of a module whose output is added to what it sees."""

    def mark(method: F) -> F:
        setattr(method, _MARK, kind)
        return method

    return mark


@dataclass
class Branches:
    """The branches of one call, in the order in which they were met."""

    outputs: list[Array] = field(default_factory=list)  # computed or taken
    kinds: list[Kind] = field(default_factory=list)


@contextmanager
def branches(fresh: Sequence[bool] | None = None, cached: Sequence[Array] = ()) -> Iterator[Branches]:
    """Branches met within are computed where `fresh`, and else taken from `cached`; None: all are computed.

    Yields:
        `Branches`, complete at the end.

    Raises:
        UserError: if the network has another number of branches than `fresh`, or `cached` holds what was
            computed within a transformation.
    """
    met = Branches()

    def intercept(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        kind = getattr(getattr(type(context.module), context.method_name, None), _MARK, None)
        if kind is None:
            return method(*args, **kwargs)
        i = len(met.outputs)
        met.kinds.append(kind)
        skipped = fresh is not None and i < len(fresh) and not fresh[i]
        met.outputs.append(cached[i] if skipped else method(*args, **kwargs))
        return met.outputs[-1]

    with nn.intercept_methods(intercept):
        try:
            yield met
        except jax.errors.UnexpectedTracerError as error:
            raise UserError(
                "the network is called within jax.grad, jax.vmap or a scan, and no cache can keep that: "
                "leave out the guide that differentiates the denoiser, or the cache"
            ) from error
    if fresh is not None and len(fresh) != len(met.outputs):
        raise UserError(
            f"the cache schedule is of {len(fresh)} branches, and this network has {len(met.outputs)}: "
            "profile the network that is sampled (a transformer or a conditional MLP)"
        )
