"""`train_online` in environments on the host: the same learners, the same journal, the same evaluation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.draws import batches, together
from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.learning.optimiser import copied
from jdp.loops.chunks import Chunks
from jdp.loops.collect import finished
from jdp.loops.host import HostEnvironments, HostState, acted
from jdp.loops.journal import Journal, Memory
from jdp.loops.off_policy import Buffer, buffer_of, kept, learn, offline_rows
from jdp.loops.on_policy import explores
from jdp.loops.play import Make
from jdp.loops.rounds import Evaluate, evaluate_due
from jdp.loops.train import INIT, vmapped
from jdp.tasks.simulators.batch import Outcome
from jdp.types import Decision, Logged, Method, Policy, PyTree, Rollout, Spec, named_keys

Acting = OnPolicyConfig | OffPolicyConfig


class HostRun(NamedTuple):
    """All that a run holds: what has been learned, and where its environments stand."""

    learner: PyTree  # [S, ...]
    carry: PyTree  # of the policy, [S, N, ...]
    ended: Array  # [S, N] bool, whether what is remembered belongs to an episode that is over
    buffer: Buffer | None  # of off-policy methods, [S, ...]
    environments: HostState  # [S * N]


class Turn(Protocol):
    """One update, with the steps of the environments that belong to it."""

    def __call__(self, key: Array, run: HostRun, batch: PyTree, /) -> tuple[HostRun, Logged]:
        """The run after it, and the metrics `[S]`; the key is consumed."""
        ...


def train_online_host(
    method: Method,
    make: Make,
    spec: Spec,
    acting: Acting,
    *,
    key: Array,
    updates: int,
    seeds: int,
    seed: int = 0,
    rows: PyTree = (),
    base: PyTree = (),
    begun: PyTree = (),
    chunk: int = 100,
    journal: Journal | None = None,
    phase: str = "online",
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    finish: Callable[[HostRun], None] | None = None,
) -> PyTree:
    """As `train_online`, in environments that `make` makes (`jdp.evaluation.environment_maker`).

    Args:
        spec: of the task.
        seed: of the environments' episodes.
        finish: called at the end with all that the run holds, its buffer too.

    Raises:
        UserError: if the loss is not finite, the method does not learn as `acting` says, or the task has no
            time limit.
    """
    journal, every = Memory() if journal is None else journal, evaluate_every or updates
    envs = HostEnvironments(make, seeds * acting.environments, spec.action_dim, seed)
    try:
        players = _Players(method, spec, acting, envs, seeds)
        run, start = journal.begin(phase, lambda run: run, players.begin(key, rows, base, begun))
        if start:
            envs.restore(HostState(*(np.array(x) for x in run.environments)))
        journal.cut(f"{phase}/evaluation", start)
        after, told = Chunks(journal, phase, updates), []
        with journal.held(), journal.progress(after.label, updates, "update", start) as after.bar:
            for step in range(start, updates):
                run, metrics = players.turn(jax.random.fold_in(key, step), run, rows)
                told.append(metrics)
                end = step + 1
                due = end % every == 0 or end == updates
                if due or end % chunk == 0:
                    run = run._replace(environments=jax.tree.map(np.copy, envs.state))
                    after(end, run, _means(told))
                    told = []
                if due:
                    journal.save(phase, end, run)
                    evaluate_due(after, evaluate, run.learner, end - every, end, every)
                    after.restart()
        evaluate_due(after, evaluate, run.learner, updates - every, updates, every)
        if finish is not None:
            finish(run)
        return run.learner
    finally:
        envs.close()


def _means(told: list[Logged]) -> Logged:
    return {name: np.mean([np.asarray(one[name]) for one in told], axis=0) for name in told[0]}


class _Players:
    """The compiled programs of a method, and the environments that they act in; all state is in `HostRun`."""

    def __init__(self, method: Method, spec: Spec, acting: Acting, envs: HostEnvironments, seeds: int):
        self.method, self.spec, self.acting, self.envs, self.seeds = method, spec, acting, envs, seeds
        self.policy, self.draw = explores(method), together(method.learner.draws)
        self.act = jax.jit(partial(acted, self.policy))
        self.update = jax.jit(vmapped(method.learner.update, seeds))
        self.learn = jax.jit(
            jax.vmap(partial(_kept_and_learned, method=method, config=acting)), donate_argnums=2
        )
        self.insert = jax.jit(jax.vmap(partial(kept, method=method)), donate_argnums=0)
        self.pick = self._picker()

    def _picker(self) -> Any:
        """`(key, rows) -> batch`, of the dataset's rows; () where none are asked for."""
        if isinstance(self.acting, OnPolicyConfig):
            return jax.jit(batches(self.draw, 1, self.seeds))
        if not (offline := offline_rows(self.acting)):
            return lambda key, rows: ()
        draw: Any = self.draw
        many = replace(draw, minibatches=draw.minibatches * self.acting.updates)
        return jax.jit(batches(many, offline, self.seeds))

    def shaped(self, x: np.ndarray) -> np.ndarray:
        """`[S * N, ...]` as `[S, N, ...]`."""
        return x.reshape(self.seeds, self.acting.environments, *x.shape[1:])

    def begin(self, key: Array, rows: PyTree, base: PyTree, begun: PyTree) -> HostRun:
        """Before the first update: first steps fill the buffer, at random or by `Method.warm_up`.

        The learner sees `base`, `rows`, or the random steps; where states have `begun` already, they go on.
        """
        uses, warm_up = named_keys(jax.random.fold_in(key, INIT), "learner", "warm_up"), self.method.warm_up
        keys, buffer = jax.random.split(uses["learner"], self.seeds), None
        learner = copied(begun) if jax.tree.leaves(begun) else None
        data, axes = base, (0, None)
        if not jax.tree.leaves(base) and jax.tree.leaves(rows):
            data = self.draw.view(rows)
        if isinstance(self.acting, OffPolicyConfig) and warm_up is not None:
            learner = self._init(keys, data, axes) if learner is None else learner
            buffer = self._first_steps(self.acting, self._by(warm_up, uses["warm_up"], learner))
        elif isinstance(self.acting, OffPolicyConfig):
            buffer = self._first_steps(self.acting, self._at_random())
            if not jax.tree.leaves(data):
                data, axes = jax.vmap(self.draw.view)(buffer.rows[:, : int(buffer.size[0])]), (0, 0)
        learner = self._init(keys, data, axes) if learner is None else learner
        seen = self.shaped(self.envs.observation)
        return HostRun(
            learner, self._remembers(self.policy), jnp.zeros(seen.shape[:2], bool), buffer, self.envs.state
        )

    def _init(self, keys: Array, data: PyTree, axes: tuple[int, int | None]) -> PyTree:
        return jax.jit(jax.vmap(self.method.learner.init, in_axes=axes))(keys, data)

    def _remembers(self, policy: Policy) -> PyTree:
        """The carry of new episodes, `[S, N, ...]`."""
        return jax.vmap(policy.init)(jnp.asarray(self.shaped(self.envs.observation)))

    def _first_steps(self, config: OffPolicyConfig, decide: Callable[[int, np.ndarray], Decision]) -> Buffer:
        """Steps under `decide(step, ended [S, N])`."""
        buffer = jax.vmap(lambda _: buffer_of(self.method, config.capacity))(np.arange(self.seeds))
        ended = np.zeros((self.seeds, config.environments), bool)
        for step in range(config.first_steps):
            rollout, outcome = self._step(decide(step, ended))
            buffer, ended = self.insert(buffer, rollout), outcome.ended
        return buffer

    def _at_random(self) -> Callable[[int, np.ndarray], Decision]:
        rng = np.random.default_rng(self.envs.seed)

        def decide(step: int, ended: np.ndarray) -> Decision:
            del step
            action = rng.uniform(-1, 1, (len(self.envs.envs), self.spec.action_dim)).astype(np.float32)
            return Decision(jnp.asarray(self.shaped(action)), jnp.ones(ended.shape, bool))

        return decide

    def _by(self, policy: Policy, key: Array, learner: PyTree) -> Callable[[int, np.ndarray], Decision]:
        act, carry = jax.jit(partial(acted, policy)), self._remembers(policy)

        def decide(step: int, ended: np.ndarray) -> Decision:
            nonlocal carry
            seen = self.shaped(self.envs.observation), self.shaped(self.envs.goal)
            carry, decision = act(key, step, learner, carry, ended, *seen)
            return jax.device_get(decision)

        return decide

    def _step(self, decision: Decision) -> tuple[Rollout, Outcome]:
        """One step of all environments: a rollout `[S, N]` without its time axis, and how they stand."""
        observation, goal = self.shaped(self.envs.observation), self.shaped(self.envs.goal)
        outcome = self.envs.step(np.asarray(decision.action).reshape(len(self.envs.envs), -1))
        outcome = jax.tree.map(self.shaped, outcome)
        rollout = Rollout(
            observation,
            goal,
            decision,
            outcome.reward,
            outcome.observation,
            outcome.terminal,
            outcome.truncated,
            outcome.success,
        )
        return rollout, outcome

    def turn(self, key: Array, run: HostRun, rows: PyTree) -> tuple[HostRun, Logged]:
        """One update with its steps; see `Turn`."""
        keys = named_keys(key, "draw", "act", "learn")
        batch, on = self.pick(keys["draw"], rows), isinstance(self.acting, OnPolicyConfig)
        taken, carry, ended, outcomes = [], run.carry, run.ended, []
        for t in range(self.acting.steps if isinstance(self.acting, OnPolicyConfig) else 1):
            seen = self.shaped(self.envs.observation), self.shaped(self.envs.goal)
            carry, decision = self.act(keys["act"], t, run.learner, carry, ended, *seen)
            rollout, outcome = self._step(jax.device_get(decision))
            ended = outcome.ended
            taken.append(rollout)
            outcomes.append(outcome)
        told = jax.vmap(finished, in_axes=1)(jax.tree.map(lambda *x: np.stack(x), *outcomes))
        if on:
            rolled = jax.tree.map(lambda *x: np.stack(x, axis=1), *taken)
            given = (rolled, batch) if jax.tree.leaves(batch) else rolled
            learner, metrics = self.update(keys["learn"], run.learner, given)
            return HostRun(learner, carry, ended, None, run.environments), {**metrics, **told}
        each = jax.random.split(keys["learn"], self.seeds)
        learner, buffer, metrics = self.learn(each, run.learner, run.buffer, taken[0], batch)
        return HostRun(learner, carry, ended, buffer, run.environments), {**metrics, **told}


def _kept_and_learned(
    key: Array, state: PyTree, buffer: Buffer, rollout: Rollout, batch: PyTree, *, method: Method, config: Any
) -> tuple[PyTree, Buffer, Logged]:
    buffer = kept(buffer, rollout, method)
    learned, metrics = learn(key, state, buffer, batch, method=method, config=config)
    return learned, buffer, metrics
