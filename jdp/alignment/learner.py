"""What methods of alignment share: a state, and updates that draw, judge, and learn in minibatches."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import optax
from jax import Array

from jdp.alignment.models import AnyModel, Given, GivenDraw
from jdp.errors import UserError, check_settings
from jdp.learning.candidates import repeated
from jdp.learning.optimiser import Trained, begin, clipped_adam, copied
from jdp.learning.ppo import epochs
from jdp.types import Bound, Learner, Metrics, Params, PyTree, named_keys


@dataclass(frozen=True)
class AlignConfig:
    """Settings of all methods; a batch is of conditions."""

    group: int = 16
    """Samples for each condition."""
    epochs: int = 1
    """Passes over the samples of an update."""
    minibatches: int = 1
    """Of a pass."""
    learning_rate: float = 1e-3
    """Of Adam, constant."""
    grad_norm: float = 1.0
    """Longer gradients are scaled down to it."""
    kl_weight: float = 1.0
    """Beta: of the divergence from the model as it was, in units of the reward."""
    target_kl: float | None = None
    """The passes of an update stop once the model has moved further (in nats); None: never."""
    watched: int = 1024
    """Samples by which the share off the data's support is told, twenty times in a training; 0: never."""
    off_support_bound: float = 0.02
    """Training stops where a larger share of samples lies off the data's support."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            group=(self.group, 1, 1_000_000),
            epochs=(self.epochs, 1, 10_000),
            minibatches=(self.minibatches, 1, 1_000_000),
            kl_weight=(self.kl_weight, 0, 1e9),
            watched=(self.watched, 0, 1_000_000),
            off_support_bound=(self.off_support_bound, 0, 1),
        )

    def optimiser(self) -> optax.GradientTransformation:
        """Adam after clipping."""
        return clipped_adam(self.learning_rate, self.grad_norm)


def check_baseline(config: AlignConfig) -> None:
    """Raises `UserError` where a sample would be judged by the others of a group of one."""
    if config.group < 2:
        raise UserError(
            f"{type(config).__name__}.group is {config.group}; samples are judged by others there: "
            "draw 2 or more"
        )


class Aligned(NamedTuple):
    """What learns, and what it is held to."""

    trained: Trained
    reference: Params  # as the model was
    judge: PyTree  # of `Given`
    memory: PyTree = ()  # of the method


Collect = Callable[..., tuple[PyTree, Metrics]]
# collect(key, state, batch, *, config, model) -> (rows [R, ...], metrics): what minibatches are drawn from
Loss = Callable[..., tuple[Array, Metrics]]
# loss(params, rows, *, reference, config, model) -> (scalar, metrics)


class Memory(NamedTuple):
    """What a method remembers beside its parameters, as two module-level functions."""

    begin: Callable[..., PyTree]  # begin(params, *, config, model) -> memory
    after: Callable[..., PyTree]  # after(memory, params, *, config, model) -> memory, once an update is done


def _none(params: Params, *, config: AlignConfig, model: AnyModel) -> PyTree:
    del params, config, model
    return ()


def _kept(memory: PyTree, params: Params, *, config: AlignConfig, model: AnyModel) -> PyTree:
    del params, config, model
    return memory


NOTHING = Memory(_none, _kept)


def init(key: Array, data: Given, *, memory: Memory, config: AlignConfig, model: AnyModel) -> Aligned:
    """Before the first update: the model as it was."""
    del key
    params = copied(data.params)
    trained = begin(config.optimiser(), params)
    remembered = memory.begin(copied(params), config=config, model=model)
    return Aligned(trained, copied(params), copied(data.judge), remembered)


def _update(
    key: Array,
    state: Aligned,
    batch: PyTree,
    *,
    collect: Collect,
    loss: Loss,
    memory: Memory,
    config: AlignConfig,
    model: AnyModel,
    shuffle: bool,
) -> tuple[Aligned, Metrics]:
    keys = named_keys(key, "draw", "learn")
    settings: dict[str, Any] = {"config": config, "model": model}
    rows, told = collect(keys["draw"], state, batch, **settings)
    own = partial(loss, reference=state.reference, **settings)
    trained, metrics = epochs(keys["learn"], state.trained, rows, own, config, shuffle=shuffle)
    remembered = memory.after(state.memory, trained.params, **settings)
    return state._replace(trained=trained, memory=remembered), {**metrics, **told}


def aligned(
    collect: Collect,
    loss: Loss,
    config: AlignConfig,
    model: AnyModel,
    memory: Memory = NOTHING,
    *,
    shuffle: bool = True,
) -> Learner:
    """A learner of module-level functions `collect` and `loss`, which learns from rows of `Given`.

    Without `shuffle` the minibatches are the parts of the collected rows as they lie.
    """
    own = (("config", config), ("memory", memory), ("model", model))
    update = Bound(_update, (("collect", collect), *own, ("loss", loss), ("shuffle", shuffle)))
    return Learner(Bound(init, own), update, GivenDraw())


def in_groups(reward: Array, config: AlignConfig) -> Array:
    """`[B]` as `[P, K]`, of conditions repeated by `each`."""
    return reward.reshape(-1, config.group)


def each(condition: Array, config: AlignConfig) -> Array:
    """`[P * K, C]`: conditions `[P, C]`, K = `config.group` times each."""
    return repeated(condition, config.group)
