"""Small policies, each compiled once for all tests; random segments, and a bandit of two modes."""

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jdp.data import SegmentRows
from jdp.data.segments import FAR
from jdp.learning.tokenizers import TokenizerConfig
from jdp.policies import make
from jdp.policies.beso import BESOConfig
from jdp.policies.cfgrl import CFGRLConfig
from jdp.policies.diffuser_actor import DiffuserActorConfig
from jdp.policies.diffusion_drive import DiffusionDriveConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.diffusion_vla import DiffusionVLAConfig
from jdp.policies.dql import DQLConfig
from jdp.policies.ebt import EBTConfig
from jdp.policies.edp import EDPConfig
from jdp.policies.fdp import FDPConfig
from jdp.policies.fql import FQLConfig
from jdp.policies.idql import IDQLConfig
from jdp.policies.implicit_rdp import ImplicitRDPConfig
from jdp.policies.mode import MoDEConfig
from jdp.policies.nomad import NoMaDConfig
from jdp.policies.pad import PADConfig
from jdp.policies.rdp import RDPConfig
from jdp.policies.rti import RTIConfig
from jdp.policies.seed_policy import SeedPolicyConfig
from jdp.policies.streaming import StreamingConfig
from jdp.policies.two_hot import TwoHotConfig
from jdp.types import Method, Segments, Spec

GROUPS = (("position", (0, 1)), ("velocity", (2,)))
SPEC, GOALS = Spec(3, 2, groups=GROUPS), Spec(3, 2, goal=(0, 1), groups=GROUPS)
ROWS = 64
ACTOR = {"features": 32, "blocks": 1, "learning_rate": 3e-3, "steps": 800, "ema": 0.99}
CRITIC = {"critic_hidden": (32, 32), "critic_learning_rate": 3e-3, "tau": 0.1, "discount": 0.9}
TINY: dict[str, Any] = {
    "dql": DQLConfig(candidates=8, temperature=0.05, sampling_steps=3, **ACTOR, **CRITIC),
    "idql": IDQLConfig(candidates=32, **ACTOR, **CRITIC),
    "edp": EDPConfig(alpha=1.0, candidates=8, temperature=0.05, sampling_steps=5, **ACTOR, **CRITIC),
    "fql": FQLConfig(hidden=(32, 32), alpha=0.3, flow_steps=5, learning_rate=3e-3, **CRITIC),
    "diffusion_policy": DiffusionPolicyConfig(chunk=4, execute=3, history=2, **{**ACTOR, "features": 64}),
    "diffusion_drive": DiffusionDriveConfig(chunk=4, execute=3, anchors=6, score_features=32, **ACTOR),
    "diffuser_actor": DiffuserActorConfig(chunk=2, execute=2, heads=2, sampling_steps=3, **ACTOR),
    "diffusion_vla": DiffusionVLAConfig(chunk=3, execute=2, tokens=3, token_features=32, **ACTOR),
    "beso": BESOConfig(goal_drop=0.3, **ACTOR),
    "cfgrl": CFGRLConfig(drop=0.3, **ACTOR, **CRITIC),
    "nomad": NoMaDConfig(chunk=2, execute=1, attention_blocks=1, distance_weight=0.1, **ACTOR),
    "seed_policy": SeedPolicyConfig(history=3, chunk=2, execute=2, memory=16, slots=2, tokens=2, **ACTOR),
    "fdp": FDPConfig(chunk=2, execute=2, sampling_steps=2, **ACTOR),
    "pad": PADConfig(chunk=2, execute=2, ahead=(1,), **ACTOR),
    "mode": MoDEConfig(chunk=2, execute=2, heads=2, sampling_steps=2, **ACTOR),
    "rti": RTIConfig(chunk=4, **{**ACTOR, "features": 64}),
    "streaming": StreamingConfig(chunk=4, execute=2, sigma_max=20.0, **{**ACTOR, "features": 64}),
    "ebt": EBTConfig(chunk=2, execute=2, hidden=(16, 16), most_steps=3, learning_rate=3e-3, steps=800),
    "rdp": RDPConfig(chunk=4, execute=3, tokenizer=TokenizerConfig(latent=2, encoder=16, decoder=8), **ACTOR),
    "implicit_rdp": ImplicitRDPConfig(chunk=4, execute=3, heads=2, sampling_steps=2, **ACTOR),
    "two_hot": TwoHotConfig(bins=5, hidden=(32,), learning_rate=3e-3),
}


class Programs(NamedTuple):
    """A method of the task `GOALS`, its first state, and its two functions, jitted."""

    method: Method
    state: Any
    update: Any
    act: Any


@cache
def programs(name):
    """Those of `TINY[name]`: all tests share their compilation."""
    method = make(TINY[name], GOALS)
    learner = method.learner
    state = jax.jit(learner.init)(jax.random.key(0), rows_like(segments(0, offsets_of(method))))
    return Programs(method, state, jax.jit(learner.update), jax.jit(method.policy.act))


def offsets_of(method):
    """Of the segments that the method learns from."""
    return method.learner.draws.offsets


def segments(seed, offsets=(0, 1), spec=GOALS):
    """Random segments; on tasks with goals a third of the goals is one step ahead, a third of elsewhere."""
    rng, length = np.random.default_rng(seed), len(offsets)

    def normal(*shape):
        return rng.normal(size=(ROWS, *shape)).astype(np.float32)

    distance = np.array([1, 7, FAR], np.int32)[np.arange(ROWS) % 3]
    return Segments(
        observation=normal(length, 3),
        action=np.tanh(normal(length, 2)),
        reward=normal(length),
        terminal=(rng.random((ROWS, length)) < 0.3).astype(np.float32),
        value=normal(length),
        goal=normal(len(spec.goal)),
        distance=distance if spec.goal else np.full(ROWS, FAR, np.int32),
    )


def rows_like(batch):
    flat = [x.reshape(-1, *x.shape[2:]) for x in batch[:5]]
    starts = np.arange(0, len(flat[2]) - 1, dtype=np.int32)
    return SegmentRows(*flat, starts, starts + 1, starts)


def shaken(params, seed=5, scale=0.3):
    """Parameters with noise: networks begin with a last layer of zeros, of which little can be tested."""
    rng = np.random.default_rng(seed)

    def shake(x):
        return jax.device_put((np.asarray(x) + scale * rng.normal(size=x.shape)).astype(np.float32))

    return jax.tree.map(shake, params)


MODE, SHARE, STD = 0.6, 0.3, 0.1


def bandit(seed, offsets, *, told=False):
    """A share of .3 of the actions is about .6 and reaches the goal at once; the others, about -.6, do not.

    What is seen says nothing, but where `told` the goal says which action was taken: its sign.
    """
    batch, rng = segments(seed, offsets), np.random.default_rng(seed)
    right = rng.random(ROWS) < SHARE
    sign = np.where(right, 1.0, -1.0).astype(np.float32)
    noise = STD * rng.normal(size=batch.action.shape)
    return batch._replace(
        action=(MODE * sign[:, None, None] + noise).astype(np.float32),
        goal=np.stack([sign, sign], axis=1) if told else batch.goal,
        distance=np.where(right, 1, 2).astype(np.int32),
    )


def trained(name, steps, *, told=False, config=None, rows=None):
    """The state of `TINY[name]` after `steps` updates on the bandit; or of `config`, begun with `rows`."""
    method, state, update, _ = programs(name)
    if config is not None:
        learner = make(config, GOALS).learner
        state, update = jax.jit(learner.init)(jax.random.key(0), rows), jax.jit(learner.update)
    for i, key in enumerate(jax.random.split(jax.random.key(2), steps)):
        state, _ = update(key, state, bandit(i, offsets_of(method), told=told))
    return state


def actions_of(method, state, goal=None):
    """`[1024]` actions of the trained policy, their first entry."""
    observation, goals = np.random.default_rng(8).normal(size=(2, 1024, 3)).astype(np.float32)
    goals = goals[:, :2] if goal is None else np.full((1024, 2), goal, np.float32)
    carry = method.policy.init(observation)
    _, found = jax.jit(method.policy.act)(jax.random.key(9), state, carry, observation, goals)
    return np.asarray(found.action)[:, 0]
