"""How many different plans there are among those that keep a rule (the RefineNet of arXiv 2503.02924).

Plans are rated by a determinantal point process of the kernel `Q S Q`: `S` says how alike two plans are, `q`
how well one keeps the rule, 0 where it breaks it.
"""

import jax
import jax.numpy as jnp
from jax import Array


def kernel(plans: Array, robustness: Array, scale: Array | float = 1.0) -> Array:
    """`[N, N]`, `q_i exp(-scale |x_i - x_j|^2 / D) q_j` of plans `[N, ...]` of D numbers.

    `q = exp(robustness) 1[robustness > 0]`, of `robustness` `[N]`.
    """
    x = plans.reshape(plans.shape[0], -1)
    gap = jnp.mean(jnp.square(x[:, None] - x[None]), axis=-1)
    quality = jnp.where(robustness > 0, jnp.exp(robustness), 0.0)
    return quality[:, None] * jnp.exp(-scale * gap) * quality[None]


def diversity_logdet(plans: Array, robustness: Array, scale: Array | float = 1.0) -> Array:
    """`[]`, `log det(I + L)` of `kernel`: a loss is minus it. 0 where no plan keeps the rule."""
    found = kernel(plans, robustness, scale)
    return jnp.linalg.slogdet(jnp.eye(found.shape[0], dtype=found.dtype) + found)[1]


def expected_number(plans: Array, robustness: Array, scale: Array | float = 1.0) -> Array:
    """`[]`, `tr(I - (L + I)^-1)`, how many plans a draw of the process has: minus RefineNet's second loss."""
    found = kernel(plans, robustness, scale)
    eye = jnp.eye(found.shape[0], dtype=found.dtype)
    return jnp.trace(eye - jnp.linalg.inv(found + eye))


def most_diverse(plans: Array, robustness: Array, count: int, scale: Array | float = 1.0) -> Array:
    """`[count]`, the plans chosen one after another that raise `diversity_logdet` of the chosen ones most.

    The greedy choice, within `1 - 1/e` of the best, as log determinants are submodular. Plans that break the
    rule raise it by nothing: they come last.
    """
    found = kernel(plans, robustness, scale)
    eye = jnp.eye(found.shape[0], dtype=found.dtype)

    def chosen(among: Array) -> Array:
        return jnp.linalg.slogdet(eye + found * among[:, None] * among[None])[1]

    def choose(among: Array, _: None) -> tuple[Array, Array]:
        with_one = jax.vmap(lambda one: chosen(jnp.maximum(among, one)))(eye)
        best = jnp.argmax(jnp.where(among > 0, -jnp.inf, with_one))
        return jnp.maximum(among, eye[best]), best

    return jax.lax.scan(choose, jnp.zeros(found.shape[0], found.dtype), None, length=count)[1]
