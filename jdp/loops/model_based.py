"""Model-based offline RL: agents learn from data and from rollouts of their own policies in a model."""

from dataclasses import dataclass, field
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes
from jdp.data.draws import together
from jdp.data.pools import Pool
from jdp.errors import UserError
from jdp.loops.journal import Journal, Memory
from jdp.loops.on_policy import explores
from jdp.loops.rounds import RoundOptions, train_in_rounds
from jdp.synthesis.branches import branches
from jdp.synthesis.rings import empty_rings, refill
from jdp.types import AnyArray, Method, Policy, PyTree, WorldModel
from jdp.world_models.ring import Ring
from jdp.world_models.rollout import RolloutConfig


def train_model_based(
    method: Method,
    model_state: PyTree,
    rows: AnyArray,
    data: Episodes,
    rollouts: RolloutConfig,
    *,
    rollout_key: Array,
    **options: Unpack[RoundOptions],
) -> PyTree:
    """All seeds `[S, ...]` of a method with `imagination`, in rounds of `rollouts.every` updates.

    Args:
        model_state: of the world model that `method` was made from, as trained; it is calibrated here.
        rows: of `method.learner.draws` (`jdp.data.prepared`).
        data: whose states rollouts begin in.
        rollout_key: rollouts that serve the updates from `b` on use `fold_in(rollout_key, b)`.
        journal: keeps "rollouts" too.
        options: see `train_in_rounds`; `every` and `real_share` are those of the rollouts.

    Raises:
        UserError: if the method imagines nothing, or the loss is not finite.
    """
    imagination, journal = method.imagination, options.get("journal") or Memory()
    if imagination is None:
        raise UserError("this method learns from no world model: use train_in_rounds")
    rows = jnp.asarray(rows)  # once; the rings change every round
    buffers = RolloutBuffers(
        imagination.model,
        imagination.calibrate(model_state, together(method.learner.draws).view(rows)),
        explores(method),
        data,
        rollouts,
        rollout_key,
        (options["seeds"], rows.shape[-1]),
        options.get("mesh"),
        journal,
    )

    def pool_for(begin: int, states: PyTree) -> Pool:
        rings = buffers.at(begin, states)
        return Pool(rows, rings.rows, rings.size)

    options["journal"] = journal
    every, share = rollouts.every, rollouts.real_share
    return train_in_rounds(method, rows, pool_for, every=every, real_share=share, **options)


@dataclass
class RolloutBuffers:
    """A ring buffer of imagined transitions for each seed, refilled by its own policy before each round."""

    model: WorldModel
    model_state: PyTree
    policy: Policy
    data: Episodes
    config: RolloutConfig
    key: Array
    shape: tuple[int, int]  # seeds, width of a packed transition
    mesh: Mesh | None
    journal: Journal
    _newest: dict[int, Ring] = field(default_factory=dict)  # by the update that it serves from

    def at(self, begin: int, states: PyTree) -> Ring:
        """The buffers `[S, ...]` that serve the updates from `begin` on; `states` are the policies then."""
        if begin in self._newest:
            return self._newest[begin]

        def roll() -> dict[str, np.ndarray]:
            rings = self._refilled(begin, states)
            self._newest.clear()
            self._newest[begin] = rings
            return {name: np.asarray(x) for name, x in rings._asdict().items()}

        found = self.journal.kept("rollouts", begin, roll)
        return self._newest.get(begin) or Ring(**jax.tree.map(jnp.asarray, found))

    def _refilled(self, begin: int, states: PyTree) -> Ring:
        seeds, width = self.shape
        if begin:
            rings = self.at(begin - self.config.every, states)
        else:
            rings = empty_rings(self.config, seeds, width)
        key = jax.random.fold_in(self.key, begin)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        histories = branches(rng, self.data, self.model.history, (seeds, self.config.batch))
        return refill(
            key, self.model, self.model_state, self.policy, states, rings, histories, self.config, self.mesh
        )
