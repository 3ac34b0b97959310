"""A flow's Euler steps with learned noise, as a policy: the chain of ReinFlow (arXiv 2505.22094).

Drift and noise are in the flow's own coordinate `x / (1 + sigma)`, in which Euler's steps are equal and the
noise is one of actions; states are kept in `x`, as everywhere.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion import chains
from jdp.diffusion.times import FLOW
from jdp.diffusion.transitions import Scalar, euler_step
from jdp.errors import UserError, check_settings
from jdp.finetune import chain
from jdp.learning.ppo import flat
from jdp.networks.mlp import mlp
from jdp.policies import actions
from jdp.policies.chunks import ChunkConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Denoiser, Network, Normal, Params, PyTree, Spec, bind, named_keys


@dataclass(frozen=True)
class NoisyFlowConfig:
    """The flow that draws a chunk of actions while it is learned from; the defaults are those of Hopper."""

    levels: int = 4
    """Euler steps, while it learns and when it is scored."""
    std_min: float = 0.1
    """Least standard deviation of a step's noise, in units of actions."""
    std_max: float = 0.24
    """Largest one."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network of the noise."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            levels=(self.levels, 1, 1000),
            std_min=(self.std_min, 1e-6, 10),
            std_max=(self.std_max, self.std_min, 10),
        )

    def noise(self, width: int) -> Network:
        """Of what is shown of a state and the flow's time, `[..., O + G + 1]` to `[..., width]`."""
        return mlp((*self.hidden, width), activation="tanh", last_limit=1e-3)


def check_base(base: object) -> DiffusionPolicyConfig:
    """The settings of a base policy that is a flow.

    Raises:
        UserError: if it is none.
    """
    found = chain.check_base(base)
    if found.formulation != "flow":
        raise UserError(
            f"the base policy is no flow but of formulation {found.formulation}: "
            "train one with --settings.formulation flow --settings.sampler euler"
        )
    return found


def levels(config: NoisyFlowConfig, base: ChunkConfig) -> Array:
    """`[levels + 1]`, the schedule of the base policy with as many steps as `config` says."""
    return replace(base.sampling(), steps=config.levels).sigmas()


def noise_std(params: Params, shown: Array, sigma: Array, config: NoisyFlowConfig, width: int) -> Array:
    """`[B, width]`, of the noise of the steps from levels `sigma` `[B]` at `[B, C]`, in units of actions.

    A tanh maps what the network says between the logarithms of both bounds; so the std begins at their
    geometric mean.
    """
    seen = jnp.concatenate([shown, FLOW.time(sigma)[:, None]], axis=-1)
    share = 0.5 * (1 + jnp.tanh(config.noise(width).apply(params, seen)))
    return config.std_min * (config.std_max / config.std_min) ** share


def _step(
    noise: Params,
    shown: Array,
    denoiser: Denoiser,
    memory: PyTree,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
    config: NoisyFlowConfig,
) -> tuple[Normal, PyTree]:
    """A `transitions.Step`: Euler's, with the learned noise times `eta`; a floor is in its bounds."""
    del std_floor
    level, level_next = (jnp.broadcast_to(s, x.shape[:1]) for s in (sigma, sigma_next))
    std = noise_std(noise, shown, level, config, x.shape[-1]) * (1 + level_next)[:, None]
    return Normal(euler_step(denoiser, x, sigma, sigma_next), eta * std), memory


def sample(
    key: Array,
    params: Params,
    shown: Array,
    config: NoisyFlowConfig,
    base: ChunkConfig,
    spec: Spec,
    *,
    eta: Scalar = 1.0,
) -> Array:
    """The chain `[K + 1, B, D]` of `params` {"flow", "noise"} at conditions `[B, C]`; the key is consumed.

    `eta` scales the noise; 0 is the base policy's own draw by Euler's steps.
    """
    keys, sigmas = named_keys(key, "start", "sampler"), levels(config, base)
    x = sigmas[0] * jax.random.normal(keys["start"], (len(shown), base.chunk * spec.action_dim))
    step = bind(_step, params["noise"], shown, config=config)
    own, options = actions.denoiser(params["flow"], shown, base), {"memory": (), "trace": True}
    return chains.sample(step, own, x, sigmas, key=keys["sampler"], eta=eta, **options)


def log_prob(
    params: Params,
    shown: Array,
    states: Array,
    config: NoisyFlowConfig,
    base: ChunkConfig,
    spec: Spec,
) -> tuple[Array, Array]:
    """Of chains `[K + 1, B, D]` at `[B, C]`: the log density `[B]`, and the entropy of the noise `[B]`.

    Both of the entries that are executed. The density is that of all steps given the start, which does not
    learn; the entropy, in units of actions, is a mean over steps and entries.
    """
    rows = flat(chain.moves(states, shown))
    sigmas, counts = levels(config, base), chain.counted(base, spec)
    level, level_next = sigmas[rows.step], sigmas[rows.step + 1]
    own = actions.denoiser(params["flow"], rows.shown, base)
    drawn, _ = _step(params["noise"], rows.shown, own, (), rows.state, level, level_next, config=config)
    density = drawn.log_prob(rows.following, mask=counts)
    entropy = jnp.log(drawn.std / (1 + level_next)[:, None]) + 0.5 * jnp.log(2 * jnp.pi * jnp.e)
    entropy = jnp.mean(entropy, axis=-1, where=counts)
    each = density.reshape(config.levels, -1), entropy.reshape(config.levels, -1)
    return jnp.sum(each[0], axis=0), jnp.mean(each[1], axis=0)
