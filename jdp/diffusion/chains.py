"""Chains of a sampler's steps (`jdp.diffusion.transitions`): drawn, and their density and divergence."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.transitions import Scalar, Step
from jdp.types import Denoiser, PyTree


def scan(step: Callable, x: Array, carry, inputs, trace: bool) -> Array:
    """Scan `step((x, carry), input) -> (x, carry)` over the inputs."""

    def body(state, item):
        state = step(state, item)
        return state, state[0] if trace else None

    (final, _), rest = jax.lax.scan(body, (x, carry), inputs)
    return final if rest is None else jnp.concatenate([x[None], rest])


def split(key: Array | None, sigmas: Array) -> Array:
    """One key a step, `[n]`; `ValueError` without a key. It is consumed."""
    if key is None:
        raise ValueError("a stochastic sampler draws noise: pass key=")
    return jax.random.split(key, sigmas.shape[0] - 1)


def draw(
    step: Step,
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    keys: Array | None,
    *,
    eta: Scalar,
    std_floor: Scalar = 0.0,
    memory: PyTree = (),
    trace: bool,
) -> Array:
    """The chain of `step`, of draws; of means where there are no keys."""

    def body(state, item):
        key, sigma, sigma_next = item
        drawn, memory = step(denoiser, state[1], state[0], sigma, sigma_next, eta=eta, std_floor=std_floor)
        return drawn.mean if key is None else drawn.sample(key), memory

    return scan(body, x, memory, (keys, sigmas[:-1], sigmas[1:]), trace)


def sample(
    step: Step,
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
    memory: PyTree = None,
    trace: bool = False,
) -> Array:
    """A chain drawn from any `transitions.Step`, whose density `chain_log_prob` gives.

    `eta` and `std_floor` are passed to the step; `memory` is that of the first one (None: no memory yet). The
    key is consumed.
    """
    if memory is None:
        memory = no_memory(step, denoiser, x, sigmas[0])
    keys = split(key, sigmas)
    return draw(step, denoiser, x, sigmas, keys, eta=eta, std_floor=std_floor, memory=memory, trace=trace)


def no_memory(step: Step, denoiser: Denoiser, x: Array, sigma: Array) -> PyTree:
    """What `step` is given before its first one: zeros of whatever it remembers (`()` for most)."""

    def once(denoiser: Denoiser, x: Array, sigma: Array) -> PyTree:
        return step(denoiser, None, x, sigma, sigma)[1]

    shapes = jax.eval_shape(once, denoiser, x, sigma)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def chain_log_prob(
    step: Step,
    denoiser: Denoiser,
    chain: Array,
    sigmas: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
    event_axes: tuple[int, ...] = (-1,),
    mask: Array | None = None,
    memory: PyTree = None,
    summed: bool = False,
) -> Array:
    """`[n, *batch]`: the log density of every transition of a chain, differentiable in `denoiser`.

    Held entries, and steps without noise (the one to level 0, where there is no `std_floor`), contribute 0.
    The step, `eta` and `std_floor` must be those that the chain was drawn with (`samplers.sample`). The
    network is called at all n states; a step without memory can be learned from one at a time,
    `step(denoiser, (), x, sigma, sigma_next)[0].log_prob(x_next)`.

    Args:
        chain: `[n + 1, *batch, *event]`, from a sampler with `trace=True`.
        sigmas: `[n + 1, *prefix]`, its levels.
        event_axes: axes of a state that are summed over: `(-1,)` for actions, `(-2, -1)` for plans.
        mask: boolean, of the rank of a state and broadcast to it: entries that count. For entries that
            guidance holds while the sampler's own level falls (`guidance.hold`), whose moves say nothing of
            the model.
        memory: of the first step; None for a chain from its beginning.
        summed: whether to sum over the steps, `[*batch]`.
    """
    if memory is None:
        memory = no_memory(step, denoiser, chain[0], sigmas[0])

    def body(memory: PyTree, item: tuple[Array, ...]) -> tuple[PyTree, Array]:
        x, x_next, sigma, sigma_next = item
        drawn, memory = step(denoiser, memory, x, sigma, sigma_next, eta=eta, std_floor=std_floor)
        return memory, drawn.log_prob(x_next, event_axes=event_axes, mask=mask)

    _, terms = jax.lax.scan(body, memory, (chain[:-1], chain[1:], sigmas[:-1], sigmas[1:]))
    return jnp.sum(terms, axis=0) if summed else terms


def chain_kl(
    step: Step,
    denoiser: Denoiser,
    other: Denoiser,
    chain: Array,
    sigmas: Array,
    *,
    other_step: Step | None = None,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
    event_axes: tuple[int, ...] = (-1,),
    mask: Array | None = None,
    memory: tuple[PyTree, PyTree] | None = None,
    summed: bool = False,
) -> Array:
    """`[n, *batch]`: `KL(step of denoiser || other_step of other)` at every state of a chain but the last.

    The sum over the steps, for a chain drawn by `denoiser`, estimates the divergence of whole chains without
    bias. Entries without noise contribute 0. `other_step` is `step` unless given; `memory` is that of both;
    all else as in `chain_log_prob`.
    """
    other_step = step if other_step is None else other_step
    if memory is None:
        memory = (
            no_memory(step, denoiser, chain[0], sigmas[0]),
            no_memory(other_step, other, chain[0], sigmas[0]),
        )

    def body(memory: tuple[PyTree, PyTree], item: tuple[Array, ...]) -> tuple[tuple[PyTree, PyTree], Array]:
        ours, mine = step(denoiser, memory[0], *item, eta=eta, std_floor=std_floor)
        theirs, others = other_step(other, memory[1], *item, eta=eta, std_floor=std_floor)
        return (mine, others), ours.kl(theirs, event_axes=event_axes, mask=mask)

    _, terms = jax.lax.scan(body, memory, (chain[:-1], sigmas[:-1], sigmas[1:]))
    return jnp.sum(terms, axis=0) if summed else terms
