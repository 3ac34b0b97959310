"""The mixture of `jdp.alignment.toy` as a base like others: rewards, teachers, and their exact optima."""

from typing import NamedTuple

from jax import Array
from jax.tree_util import Partial

from jdp.alignment import token_toy, toy
from jdp.alignment.bases import Base
from jdp.alignment.toy import FOUR, Mixture
from jdp.diffusion.discrete.samplers import Unmasking
from jdp.diffusion.sampling import ConsistencySampling, Sampling
from jdp.errors import UserError
from jdp.types import Params, bind

SAMPLING = Sampling(sampler="ddpm", steps=25)  # stochastic: its noise keeps no memory of the start
TEACHERS = (FOUR.tilted(toy.SLOPE, 1.0), FOUR.tilted((-toy.SLOPE[0], toy.SLOPE[1]), 1.0))
FEW = ConsistencySampling(steps=4, sigma_min=0.2)  # of the mixture's consistency function
REWARDS = ("linear", "modes")


class Problem(NamedTuple):
    """A toy with what is known of its optimum."""

    base: Base
    judge: Partial  # of `Given`
    conditions: Array  # [N, C]
    targets: tuple[Mixture, ...] | None  # of each condition, the exact optimum; None: not of the mixture


def _as_they_are(x0: Array, condition: Array) -> tuple[Array, Array]:
    return x0, condition


def _nothing(observation: Array, goal: Array) -> Array:
    del goal
    return observation[:, :0]


def _itself(params: Params) -> Params:
    return params


def token_problem(key: Array, steps: int = 4) -> Problem:
    """The toy of tokens, whose reward is the share of neighbours that differ; the key is consumed."""
    given, model = token_toy.given(key), token_toy.model(Unmasking(steps, "random"))
    base = Base(model, given.params, bind(_as_they_are), _nothing, _itself)  # type: ignore[arg-type]
    return Problem(base, given.judge, given.rows, None)


def problem(
    key: Array, reward: str, *, beta: float = 1.0, taught: bool = False, few: bool = False
) -> Problem:
    """The toy of a built-in reward, or of two exact teachers (`taught`); the key is consumed.

    Args:
        reward: "linear", whose optimum is the tilt `p exp(r / beta)`; "modes", four conditions that ask for a
            mode each, by `log p(mode | x)`: their optimum is nearly that mode alone.
        beta: the weight of the divergence in whose optimum samples are compared with.
        few: whether the model is the mixture's consistency function, which takes four steps.

    Raises:
        UserError: if there is no such reward.
    """
    if taught:
        given, targets = toy.given_teachers(key, TEACHERS), TEACHERS
    elif reward == "linear":
        given, targets = toy.given(key), (FOUR.tilted(toy.SLOPE, beta),)
    elif reward == "modes":
        alone = [Mixture((mean,), (1.0,), FOUR.std) for mean in FOUR.means]
        given, targets = toy.given_modes(key), tuple(alone)
    else:
        raise UserError(f"--reward {reward}: the toy has {', '.join(REWARDS)}, or give file.py:function")
    model = toy.consistency_model(FEW) if few else toy.model(SAMPLING)
    base = Base(model, given.params, bind(_as_they_are), _nothing, _itself)
    return Problem(base, given.judge, given.rows, targets)
