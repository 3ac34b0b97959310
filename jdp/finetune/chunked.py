"""Fine-tuners that decide chunks of actions, made of functions of what the base policy is shown."""

from collections.abc import Callable

from jax import Array

from jdp.data.draws import NoDraw
from jdp.finetune import base as bases
from jdp.learning.actors import remembers_nothing
from jdp.policies import chunks
from jdp.policies.chunks import ChunkCarry, ChunkConfig
from jdp.types import Bound, Decision, Draw, Learner, Method, Metrics, Policy, PyTree, Spec


def _explore(
    key: Array,
    state: PyTree,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    decide: Callable[..., Decision],
    config: object,
    spec: Spec,
    base: object,
) -> tuple[tuple[()], Decision]:
    view = bases.view(state.base, observation, goal, spec)
    return carry, decide(key, state, view, config=config, spec=spec, base=base)


def _act(
    key: Array,
    state: PyTree,
    carry: ChunkCarry,
    observation: Array,
    goal: Array,
    *,
    chunk: Callable[..., Array],
    config: object,
    spec: Spec,
    base: object,
) -> tuple[ChunkCarry, Decision]:
    def sample(past: chunks.Past) -> Array:
        view = bases.view(state.base, past.history[:, -1], goal, spec)
        return chunk(key, state, view, config=config, spec=spec, base=base)

    return chunks.step(carry, observation, sample)


def chunk_method(
    init: Callable[..., PyTree],
    update: Callable[..., tuple[PyTree, Metrics]],
    explore: Callable[..., Decision],
    chunk: Callable[..., Array],
    config: object,
    spec: Spec,
    base: object,
    *,
    draws: Draw | None = None,
    warm_up: Callable[..., Decision] | None = None,
) -> Method:
    """A fine-tuner of chunks made of module-level functions, with `config`, `spec` and `base` bound to them.

    Its state has the base policy's as `base`, which sees the present alone.

    Args:
        explore: `(key, state, view, *, config, spec, base) -> Decision` on chunks `[B, execute * A]`, at a
            `jdp.finetune.base.View`: its behaviour, for `jdp.tasks.simulators.chunked`.
        chunk: of the same arguments, `[B, chunk * A]`, of which it executes the first actions one by one
            when it is scored.
        draws: of methods with a buffer, the single steps that they learn from.
        warm_up: decides as `explore`, and fills the buffer.
    """
    settings = (("base", base), ("config", config), ("spec", spec))
    learner = Learner(Bound(init, settings), Bound(update, settings), draws or NoDraw())
    execute = bases.executed(base)
    start = Bound(chunks.start, (("config", ChunkConfig(chunk=execute, execute=execute)), ("spec", spec)))
    policy = Policy(start, Bound(_act, (*settings, ("chunk", chunk))))

    def exploring(decide: Callable[..., Decision]) -> Policy:
        return Policy(remembers_nothing, Bound(_explore, (*settings, ("decide", decide))))

    return Method(learner, policy, exploring(explore), warm_up=warm_up and exploring(warm_up))
