"""Whether a method can be trained and played at all, asked before anything is."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data import Episodes
from jdp.data.draws import together
from jdp.errors import UserError
from jdp.learning.rules import Drawn, Rule, check_rule
from jdp.loops.controller import begin, controller
from jdp.loops.play import Make
from jdp.types import Decision, Method, Policy, PyTree


def check_method(method: Method, data: Episodes) -> Decision:
    """Traces the first decision of `method`, untrained, on `data`: shapes alone, no number is computed.

    Raises:
        UserError: what the method has against its settings, the dataset or its task.
    """
    draw = together(method.learner.draws)
    rows = draw.prepare(data)
    observation, goal = jnp.zeros((1, data.spec.observation_dim)), jnp.zeros((1, len(data.spec.goal)))

    def decide(key: jax.Array) -> Decision:
        state = method.learner.init(key, draw.view(rows))
        return method.policy.act(key, state, method.policy.init(observation), observation, goal)[1]

    return jax.eval_shape(decide, jax.random.key(0))


def check_rule_on(rule: Rule, decision: Decision, data: Episodes, *, stride: int = 1, chunk: int = 1) -> None:
    """Asks a rule about the first rows of `data`, in the place of a first plan of an untrained method.

    Args:
        decision: shapes of the method's, as `check_method` gives them.
        stride: steps between two rows of a plan.
        chunk: actions that a policy draws at once.

    Raises:
        UserError: whatever is wrong with the rule, in one line.
    """
    plan = decision.plan
    rows, moves = (1, chunk) if plan is None else (plan.observation.shape[1], plan.action.shape[1])
    seen, done = (
        np.minimum(data.starts[0] + s * np.arange(n), data.stops[0] - 1)
        for s, n in ((stride, rows), (1 if plan is None else stride, moves))
    )
    observation, action = (
        jnp.asarray(x[at])[None] for x, at in ((data.observations, seen), (data.actions, done))
    )
    check_rule(rule, observation, action, drawn=_drawn(plan is not None, moves))


def _drawn(plans: bool, moves: int) -> Drawn:
    """What a method draws that plans, or draws actions alone; plans hold so many actions."""
    return "action" if not plans else "both" if moves else "observation"


def check_guided(rule: Rule, policy: Policy, state: PyTree, make: Make, *, chunk: int = 1) -> None:
    """Lets `policy`, steered by `rule`, decide once, and asks the rule about that first plan or chunk.

    The program is that of `jdp.loops.latency`, so nothing is compiled in vain.

    Args:
        chunk: actions that a policy draws at once.

    Raises:
        UserError: whatever is wrong with the rule, in one line.
    """
    env = make()
    try:
        observation, goal = (np.asarray(x, np.float32)[None] for x in env.reset(0))
    finally:
        env.close()
    actor = controller(policy)
    carry = begin(actor, observation)
    _, decision = actor.act(jax.random.key(0), 0, state, carry, observation, goal)
    steered = (decision.action, None if decision.plan is None else decision.plan.observation)
    if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(steered)):
        raise UserError(
            f"{rule.told}: the cost or its gradient is not finite on the first plan: no roots or norms of "
            "0, and jnp.where has the gradients of both branches; or lower the strength"
        )
    if decision.plan is None:
        action = jnp.repeat(decision.action[:, None], chunk, axis=1)
        check_rule(rule, jnp.asarray(observation)[:, None], action, drawn="action")
    else:
        plan = decision.plan
        check_rule(rule, plan.observation, plan.action, drawn=_drawn(True, plan.action.shape[1]))
