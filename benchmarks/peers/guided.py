"""The code of policy-guided diffusion (JAX): its training step and its sampler of 256 Heun steps."""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
from agents import SPEC

from jdp import loops
from jdp.data import batches
from jdp.data.draws import WindowRows
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from peers import Pair, Peer, importing, module

FEATURES, BATCH, LENGTH, STEPS, COUNT, SAMPLED, PART = 128, 32, 32, 256, 20, 64, 16
DIM, ACTIONS = SPEC.observation_dim, SPEC.action_dim
THEIRS = SimpleNamespace(
    num_features=FEATURES,
    num_blocks=3,
    batch_size=BATCH,
    num_epochs=100,
    lr=2e-3,
)


def pairs(folder: Path, rows: int) -> list[Pair]:
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree.map  # which the jax of its time had
    with importing(folder):
        util = module(folder / "util" / "jax.py", "util")  # its package would load D4RL
        util.construct_rollout = lambda windows, *_: windows  # type: ignore[attr-defined]
        from diffusion import diffusion, edm  # type: ignore[import-not-found]
    del sys.modules["util"]
    state = diffusion.create_denoiser_train_state(jax.random.PRNGKey(0), DIM, ACTIONS, THEIRS, 100_000)
    hypers = edm.DenoiserHyperparams(diffusion_timesteps=STEPS // PART)
    batch = jax.random.normal(jax.random.key(5), (BATCH, LENGTH, DIM + ACTIONS + 2))
    step = jax.jit(lambda s, k, x: edm.train_step(k, x, s, edm.DenoiserHyperparams())[0])
    sample = jax.jit(
        jax.vmap(lambda k: edm.sample_trajectory(k, state, LENGTH, DIM, ACTIONS, None, hypers)),
    )
    keys = jax.random.split(jax.random.PRNGKey(0), SAMPLED)

    def train():
        found = state
        for i in range(COUNT):
            found = step(found, jax.random.PRNGKey(i), batch)
        return found.params

    return [
        Pair("training step, U-Net of 128 features", train, ours_trained(rows), COUNT, COUNT,
             "theirs outside a loop, where it is quick; ours in the fit loop"),
        Pair(f"{SAMPLED} windows, unguided", lambda: sample(keys), ours_sampled(), 1 / PART, 1,
             f"theirs {STEPS} steps, of which a sixteenth is timed; ours {SamplerConfig().steps}"),
    ]  # fmt: skip


def _diffuser():
    return trajectory_diffuser(NetworkConfig("unet", FEATURES, 3), DiffuserConfig(batch_size=BATCH), LENGTH)


def ours_trained(rows: int):
    diffuser = _diffuser()
    begin = jnp.zeros((1, LENGTH, DIM + ACTIONS + 2))
    program = loops.chunk_program(diffuser.learner.update, batches(diffuser.learner.draws, BATCH), None, 0)
    starts = jnp.arange(rows - LENGTH)
    data = WindowRows(
        jax.random.normal(jax.random.key(2), (rows, DIM + ACTIONS + 2)), starts, starts + LENGTH - 1
    )
    held = [jax.jit(diffuser.learner.init)(jax.random.key(0), begin)]

    def train():
        held[0], _ = program(held[0], data, jax.random.key(1), jnp.int32(0), jnp.int32(COUNT))
        return held[0]

    return train


def ours_sampled():
    diffuser, config = _diffuser(), SamplerConfig(sigma_max=42.0)
    denoiser = diffuser.denoiser(
        jax.jit(diffuser.learner.init)(jax.random.key(0), jnp.zeros((1, LENGTH, DIM + ACTIONS + 2)))
    )
    sample, sigmas, key = jax.jit(config.function()), config.sigmas(), jax.random.key(9)
    x = sigmas[0] * jax.random.normal(jax.random.key(3), (SAMPLED, LENGTH, DIM + ACTIONS + 2))
    return lambda: sample(denoiser, x, sigmas, key=key)


PEER = Peer("policy-guided-diffusion", "EmptyJackson/policy-guided-diffusion", "9da606c", (), pairs)
