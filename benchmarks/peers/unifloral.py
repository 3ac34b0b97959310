"""Unifloral's TD3+BC and IQL (JAX): its own training step, scanned as its own loop does."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from agents import SPEC, dataset

from jdp.types import unpack
from peers import Pair, Peer, importing, module, ours

COUNT = 100  # updates in one call


def pairs(folder: Path, rows: int) -> list[Pair]:
    with importing(folder):
        found = {
            name: module(folder / "algorithms" / f"{name}.py", f"unifloral_{name}")
            for name in ("td3_bc", "iql")
        }
    o, a = SPEC.observation_dim, SPEC.action_dim
    data = unpack(dataset(rows, next_actions=False), o, a)
    return [
        Pair(
            "TD3+BC update", td3_bc(found["td3_bc"], data), ours.updates("td3_bc", rows, COUNT), COUNT, COUNT
        ),
        Pair("IQL update", iql(found["iql"], data), ours.updates("iql", rows, COUNT), COUNT, COUNT),
    ]


def _begun(peer: Any, data: Any, **networks: Any) -> tuple[Any, Any, Any]:
    """Their arguments, their agent's state (a target begins as its network), their rows."""
    args, inputs = peer.Args(), {True: [data.observation[0], data.action[0]], False: [data.observation[0]]}
    begun = {
        name: peer.create_train_state(args, jax.random.PRNGKey(0), net, inputs[name.startswith("dual_q")])
        for name, net in networks.items()
    }
    rows = peer.Transition(data.observation, data.action, data.reward, data.next_observation, data.terminal)
    return args, peer.AgentTrainState(**begun), rows


def _scanned(step: Any, state: Any) -> Any:
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, COUNT))
    return lambda: run((jax.random.PRNGKey(1), state))


def td3_bc(peer: Any, data: Any) -> Any:
    scale = jnp.mean(data.observation, 0), jnp.std(data.observation, 0)
    actor, q = peer.DeterministicTanhActor(SPEC.action_dim, *scale), peer.DualQNetwork(*scale)
    args, state, rows = _begun(peer, data, actor=actor, actor_target=actor, dual_q=q, dual_q_target=q)
    return _scanned(peer.make_train_step(args, actor.apply, q.apply, rows), state)


def iql(peer: Any, data: Any) -> Any:
    scale = jnp.mean(data.observation, 0), jnp.std(data.observation, 0)
    actor, q = peer.TanhGaussianActor(SPEC.action_dim, *scale), peer.DualQNetwork(*scale)
    value = peer.StateValueFunction(*scale)
    args, state, rows = _begun(peer, data, actor=actor, dual_q=q, dual_q_target=q, value=value)
    return _scanned(peer.make_train_step(args, actor.apply, q.apply, value.apply, rows), state)


PEER = Peer("unifloral", "EmptyJackson/unifloral", "f2dc127", (), pairs)
