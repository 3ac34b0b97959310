# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a diffusion model knows: its score
#
# A denoiser is a function, and everything else in `jdp` (samplers, guidance, planners) is made of such
# functions. This page looks at two: one of a mixture of Gaussians in the plane, where the truth is known and
# which is learned here; and one that comes with `jdp`, of windows of a hopping robot, where it is not.
#
# 1. **fields**: the score, at one noise level after another;
# 2. **curl**: is what was learned a gradient, and what does it cost that it is not?
# 3. **dimension**: of a circle, of a sphere, of a hopper;
# 4. **likelihood**: which windows are a hopper's, and which are not;
# 5. **guidance**: a vector that is added to the score.
#
# About a minute on two CPU cores; nothing is downloaded. Programs that run once are compiled quickly
# (`compile_quickly`), which changes the numbers by rounding.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp.devices import compile_quickly
from jdp.diffusion import exact, geometry, guidance, likelihood, samplers, score
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.loops import fit
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from jdp.types import bind

compile_quickly()
plt.rcParams.update({"figure.dpi": 100, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
DATA, EXACT, LEARNED, GUIDED = "#404040", "#dd9a3c", "#4878a8", "#c44e52"

# %% [markdown]
# ## Noise, and the way back
#
# Add noise of level $\sigma$ to data, $x = x_0 + \sigma\,\varepsilon$ with $\varepsilon \sim N(0, I)$. The
# **denoiser** is the mean of what the data may have been, $D(x, \sigma) = \mathbb{E}[x_0 \mid x]$, and
# Tweedie's formula makes of it the **score**, the gradient of the log density of the noisy data:
#
# $$\nabla_x \log p(x; \sigma) = \frac{D(x, \sigma) - x}{\sigma^2}.$$
#
# Of a mixture $\sum_k w_k\,N(m_k, s_k^2 I)$ it is known: `exact.mixture`. A network learns it from samples
# alone, by denoising them ([EDM](https://arxiv.org/abs/2206.00364)). `trajectory_diffuser` is the same that
# learns whole trajectories of a robot: here they have one step and two channels.

# %%
weights = jnp.array([0.5, 0.3, 0.2])
means = jnp.array([[-1.0, -0.6], [1.0, -0.7], [0.3, 1.2]])
stds = jnp.array([0.3, 0.15, 0.4])
mixture, truth = (weights, means, stds), exact.mixture(weights, means, stds)


def draw(key, mixture, count=256):
    """`count` points [count, 1, 2]: trajectories of one step."""
    weights, means, stds = mixture
    which, noise = jax.random.split(key)
    k = jax.random.categorical(which, jnp.log(weights), shape=(count,))
    return (means[k] + stds[k][:, None] * jax.random.normal(noise, (count, 2)))[:, None]


def density(points, sigma, weights=weights, means=means, stds=stds):
    """[...], the density of the noisy mixture at `points` [..., 2]."""
    variance = jnp.square(stds) + sigma**2
    gap = jnp.sum(jnp.square(points[..., None, :] - means), axis=-1)
    return jnp.sum(weights * jnp.exp(-0.5 * gap / variance) / (2 * jnp.pi * variance), axis=-1)


STEPS = 1000
config = DiffuserConfig(steps=STEPS, learning_rate=5e-3, ema=0.99, p_mean=-0.8, p_std=1.2)
diffuser = trajectory_diffuser(NetworkConfig("mixer", 64, 2), config, horizon=1)
state = jax.jit(diffuser.learner.init)(jax.random.key(0), draw(jax.random.key(1), mixture))
state = fit(diffuser.learner.update, draw, state, mixture, key=jax.random.key(2), stop=STEPS, chunk=STEPS)
learned = diffuser.denoiser(state)

# %% [markdown]
# ## 1. Fields
#
# Arrows are $\sigma\,\nabla\log p$, minus the noise that the model expects to find in $x$; those longer than
# 1 are cut. At high noise all point to the middle; as $\sigma$ falls the field breaks up into basins.

# %%
LIMIT = 2.4
side = jnp.linspace(-LIMIT, LIMIT, 15)
grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 1, 2)
fine = jnp.stack(jnp.meshgrid(*[jnp.linspace(-LIMIT, LIMIT, 120)] * 2), -1)
field = jax.jit(score)


def square(axis):
    axis.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])


def shade(axis, values, **options):
    look = {"cmap": "Greys", "alpha": 0.5} | options
    square(axis)
    return axis.imshow(values, extent=(-LIMIT, LIMIT, -LIMIT, LIMIT), origin="lower", **look)


def cut(vectors, longest):
    """`vectors` [n, 2], none longer than 1, drawn as `longest`."""
    vectors = np.asarray(vectors).reshape(-1, 2)
    return longest * vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1.0)


def arrows(axis, vectors, colour):
    points, vectors = np.asarray(grid).reshape(-1, 2), cut(vectors, 2 * LIMIT / 15)
    axis.quiver(*points.T, *vectors.T, angles="xy", scale_units="xy", scale=1, width=0.006, color=colour)


levels = [2.0, 0.8, 0.3, 0.1]
figure, axes = plt.subplots(2, 4, figsize=(8.4, 4.5), layout="constrained", sharex=True, sharey=True)
for column, sigma in enumerate(levels):
    for row, (name, denoiser, colour) in enumerate([("exact", truth, EXACT), ("learned", learned, LEARNED)]):
        axis = axes[row, column]
        shade(axis, np.sqrt(density(fine, sigma)))
        arrows(axis, sigma * field(denoiser, grid, jnp.float32(sigma)), colour)
        if row == 0:
            axis.set_title(f"$\\sigma$ = {sigma:g}")
        if column == 0:
            axis.set_ylabel(f"{name}\n$x_2$")
    axes[1, column].set_xlabel("$x_1$")
figure.suptitle("Score of the noisy mixture (shade: root of its density)")
plt.show()

# %% [markdown]
# ### A hopper
#
# The diffuser that ships has learned windows of 32 steps of `hopper-medium`: 11 observations, 3 actions,
# reward and terminal flag a step, standardised, 512 numbers in all. In the plane of two of them, height and
# vertical velocity of the torso, a hop is a loop. One window of the data is noised, and in its middle step
# these two numbers are moved over the plane while the others stay. At low noise the arrows do not point to the
# nearest crowded place but to **one point**, the true value (star): the other steps of the window say where
# in the hop the robot is.

# %%
run = jdp.load_pretrained("hopper-medium-diffuser")
denoiser, normaliser, LENGTH = run.denoiser, run.normaliser, run.config["horizon"]
print(
    f"trained on {run.written['dataset']} in {run.config['diffusion']['steps']:,} updates, by\n{run.command}"
)
data = jdp.data.load("hopper-medium", source="bundled")
packed, _ = jdp.data.training_rows(data, normaliser)
where = jdp.data.windows(data, LENGTH)
kept = where.starts + LENGTH <= where.last  # those that end before their episode does
COUNT = 32  # windows of a batch
chosen = np.random.default_rng(0).choice(where.starts[kept], 2 * COUNT, replace=False)
windows = jnp.asarray(packed[chosen[:, None] + np.arange(LENGTH)])

HEIGHT, VELOCITY, STEP = 0, 6, LENGTH // 2
pair = jnp.array([HEIGHT, VELOCITY])
scale, offset = (np.asarray(a)[[HEIGHT, VELOCITY]] for a in (normaliser.std, normaliser.mean))
corners = np.array([[-2.8, 2.6], [-2.8, 2.8]]) * scale[:, None] + offset[:, None]
counts = np.histogram2d(*data.observations[:, [HEIGHT, VELOCITY]].T, bins=90, range=corners)[0].T


def hop(axis):
    """The data in the plane, in metres and metres per second."""
    look = {"origin": "lower", "aspect": "auto", "cmap": "Greys", "alpha": 0.6}
    axis.imshow(np.log1p(counts), extent=corners.ravel(), **look)
    axis.set(xlim=corners[0], ylim=corners[1], xlabel="height (m)")


plane = jnp.stack(jnp.meshgrid(jnp.linspace(-2.6, 2.4, 13), jnp.linspace(-2.6, 2.6, 13)), -1).reshape(-1, 2)
window = windows[0]
noisy_window = jax.random.normal(jax.random.key(8), window.shape)
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.5), layout="constrained", sharey=True)
for axis, sigma in zip(axes, [3.0, 1.0, 0.3, 0.1]):
    moved = jnp.broadcast_to(window + sigma * noisy_window, (len(plane), *window.shape))
    moved = moved.at[:, STEP, pair].set(plane)
    vectors = sigma * np.asarray(field(denoiser, moved, jnp.float32(sigma)))[:, STEP, [HEIGHT, VELOCITY]]
    vectors, points = cut(vectors, 0.38) * scale, np.asarray(plane) * scale + offset
    hop(axis)
    axis.quiver(*points.T, *vectors.T, angles="xy", scale_units="xy", scale=1, width=0.007, color=LEARNED)
    star = np.asarray(window)[STEP, [HEIGHT, VELOCITY]] * scale + offset
    axis.plot(*star, "*", color=GUIDED, markersize=10, markeredgecolor="white")
    axis.set_title(f"$\\sigma$ = {sigma:g}")
axes[0].set_ylabel("vertical velocity (m/s)")
figure.suptitle(f"Learned score in step {STEP} of a window of {LENGTH} (shade: the data)")
plt.show()

# %% [markdown]
# From noise, 32 network calls lead to windows that lie where the data lie, and go round the loop.

# %%
sampler = SamplerConfig(**run.config["sampler"])
sigmas = sampler.sigmas()
noise = sigmas[0] * jax.random.normal(jax.random.key(9), (COUNT, *window.shape))
chain = np.asarray(jax.jit(samplers.dpmpp_2m, static_argnames="trace")(denoiser, noise, sigmas, trace=True))
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), layout="constrained", sharey=True)
paths = chain[:, :16, STEP][..., [HEIGHT, VELOCITY]] * scale + offset
made = chain[-1, :16][..., [HEIGHT, VELOCITY]] * scale + offset
for axis, lines, title in zip(
    axes, (paths, made.swapaxes(0, 1)), (f"16 denoising paths of step {STEP}", "16 windows that came out")
):
    hop(axis)
    axis.plot(*np.moveaxis(lines, -1, 0), color=LEARNED, linewidth=0.8)
    axis.plot(*lines[-1].T, ".", color=GUIDED, markersize=4)
    axis.set_title(title)
axes[0].set_ylabel("vertical velocity (m/s)")
plt.show()

# %% [markdown]
# ## 2. Curl
#
# A score is a gradient, so the Jacobian of an exact denoiser is symmetric; it is the covariance of what the
# data may have been, $\partial D / \partial x = \mathrm{Cov}[x_0 \mid x] / \sigma^2$. Nothing makes a network
# keep to that. `geometry.asymmetry` is the antisymmetric share of the Jacobian, from 0 to 1.
#
# Curl alone does no harm: a field that is added to the score leaves all densities, and so the samples, as they
# are if it flows along the density's contours ([gauge freedom](https://arxiv.org/abs/2402.03845)).
# `geometry.gauge_residual` says what it does to them: nats of log density for each e-fold of noise. Here both sit
# on the ridges between the components, where few points have been seen.


# %%
@jax.jit
def departures(denoiser, key, sigma):
    """At one level: relative error of the score, antisymmetric share, gauge residual (root mean squares)."""
    clean, noise = jax.random.split(key)
    x0 = draw(clean, mixture, 1024)
    x = x0 + sigma * jax.random.normal(noise, x0.shape)
    gap, size = denoiser(x, sigma) - truth(x, sigma), truth(x, sigma) - x
    share = geometry.asymmetry(denoiser, x, sigma)
    residual = geometry.gauge_residual(denoiser, truth, x, sigma)
    root = lambda v: jnp.sqrt(jnp.mean(jnp.square(v)))  # noqa: E731
    return jnp.stack([root(gap) / root(size), root(share), root(residual)])


sweep = np.geomspace(0.05, 5, 12).astype(np.float32)
found = np.array([departures(learned, jax.random.key(i), sigma) for i, sigma in enumerate(sweep)])
none = np.array([departures(truth, jax.random.key(i), sigma) for i, sigma in enumerate(sweep)])
assert none[:, :2].max() < 1e-4, "the exact denoiser has neither error nor curl"

AT = jnp.float32(0.3)
tile = fine[::2, ::2].reshape(-1, 1, 2)
turns = np.asarray(jax.jit(geometry.jacobian)(learned, tile, AT))
curl = (turns[:, 1, 0] - turns[:, 0, 1]).reshape(60, 60)
drift = np.asarray(jax.jit(geometry.gauge_residual)(learned, truth, tile, AT)).reshape(60, 60)
seen = np.asarray(density(fine[::2, ::2], AT))
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.7), layout="constrained")
for values, mark, name in zip(
    found.T, ("s-", "o-", "^-"), ("error of the score", "curl (share)", "gauge residual (nats)")
):
    axes[0].loglog(sweep, values, mark, markersize=3, label=name)
axes[0].set(xlabel=r"noise level $\sigma$", title="learned, by level")
axes[0].legend(frameon=False, fontsize=7)
for axis, values, name in zip(axes[1:], (curl, drift), ("curl of $D$", "gauge residual (nats)")):
    shown = np.where(seen > 0.01 * seen.max(), values, np.nan)
    edge = np.nanquantile(np.abs(shown), 0.98)
    figure.colorbar(shade(axis, shown, cmap="RdBu_r", alpha=1, vmin=-edge, vmax=edge), ax=axis, shrink=0.8)
    axis.contour(
        *np.moveaxis(np.asarray(fine[::2, ::2]), -1, 0), np.sqrt(seen), 4, colors=DATA, linewidths=0.4
    )
    axis.set(title=f"{name}, $\\sigma$ = {float(AT):g}", xlabel="$x_1$")
plt.show()
for sigma, (error, share, residual) in zip(sweep[1::3], found[1::3]):
    print(f"sigma {sigma:.2f}: error {error:.1%}, curl {share:.1%}, gauge residual {residual:.3f} nats")

# %% [markdown]
# ## 3. Dimension
#
# In a direction in which the data near $x$ have the variance $v$, $\partial D / \partial x$ has the eigenvalue
# $v / (v + \sigma^2)$: 1 along the data, 0 across them. So its trace counts the dimensions that the data have
# at the scale $\sigma$. Left, exact denoisers of points on a circle and on a sphere, in four dimensions. Once
# the noise is finer than the distance of neighbours (of the sphere's points, at the left end), points are what
# they are: of no dimension. That is what a network would say that has learned its data by heart.


# %%
def cloud(points):
    """The exact denoiser of `points` [K, 4] that weigh the same."""
    return exact.mixture(jnp.full(len(points), 1 / len(points)), points, jnp.zeros(len(points)))


POINTS = 2000
angle, height = np.linspace(0, 2 * np.pi, POINTS, endpoint=False), 1 - 2 * (np.arange(POINTS) + 0.5) / POINTS
turn, flat = np.pi * (1 + 5**0.5) * np.arange(POINTS), np.zeros(POINTS)
shapes = {
    "circle": np.stack([np.cos(angle), np.sin(angle), flat, flat], -1),
    "sphere": np.stack([np.sqrt(1 - height**2) * f(turn) for f in (np.cos, np.sin)] + [height, flat], -1),
}
dimension, scales = jax.jit(geometry.dimension), np.geomspace(0.003, 3, 14).astype(np.float32)
counted = {}
for name, points in shapes.items():
    rows = jnp.asarray(points[:: POINTS // 64], jnp.float32)
    shaken = jax.random.normal(jax.random.key(3), rows.shape)
    counted[name] = [float(dimension(cloud(points), rows + s * shaken, s).mean()) for s in scales]


@jax.jit
def looked(denoiser, x0, key, sigma):
    """`[2, B]`, asymmetry and dimension at noised windows, by four probes of each."""
    noise, first, second = jax.random.split(key, 3)
    x = x0 + sigma * jax.random.normal(noise, x0.shape)
    share = geometry.asymmetry(denoiser, x, sigma, key=first, probes=4)
    return jnp.stack([share, geometry.dimension(denoiser, x, sigma, key=second, probes=4)])


wide = np.geomspace(0.02, 10, 10).astype(np.float32)
hopper = np.array(
    [looked(denoiser, windows[:COUNT], jax.random.key(i), s).mean(1) for i, s in enumerate(wide)]
)
every = packed[where.starts[kept][::4][:, None] + np.arange(LENGTH)].reshape(kept[kept][::4].size, -1)
variances = np.maximum(np.linalg.eigvalsh(np.cov(every.T)), 0)
linear = [np.sum(variances / (variances + s**2)) for s in wide]

figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.7), layout="constrained")
for name, colour in (("circle", EXACT), ("sphere", GUIDED)):
    axes[0].semilogx(scales, counted[name], "o-", color=colour, markersize=3, label=name)
axes[0].set(xlabel=r"noise level $\sigma$", ylabel="dimension", title="known", yticks=[0, 1, 2])
axes[1].loglog(wide, hopper[:, 1], "o-", color=LEARNED, markersize=3, label="the learned hopper")
axes[1].loglog(wide, linear, "s-", color=EXACT, markersize=3, label="a Gaussian of its covariance")
axes[1].axhline(windows[0].size, color="#b0b0b0", linestyle="--", linewidth=0.8)
axes[1].set(xlabel=r"noise level $\sigma$", title=f"windows of {windows[0].size} numbers")
axes[2].loglog(wide, hopper[:, 0], "o-", color=LEARNED, markersize=3)
axes[2].set(xlabel=r"noise level $\sigma$", title="curl of the hopper's (share)")
for axis in axes[:2]:
    axis.legend(frameon=False, fontsize=7)
plt.show()

plateau = [np.interp(np.log(0.2), np.log(scales), counted[name]) for name in shapes]
assert abs(plateau[0] - 1) < 0.1 and abs(plateau[1] - 2) < 0.15, "a circle has one dimension, a sphere two"
print("circle and sphere at sigma .2:", ", ".join(f"{v:.2f}" for v in plateau))
for sigma, (share, own), gaussian in zip(wide[::2], hopper[::2], linear[::2]):
    print(f"hopper, sigma {sigma:5.2f}: dimension {own:5.1f} (Gaussian {gaussian:5.1f}), curl {share:.1%}")

# %% [markdown]
# What does the hopper's number mean? A window follows from the state that it begins in and from its actions:
# 11 + 32 x 3 = 107 numbers, and no window of the simulator can have more. At a scale of a third of a standard
# deviation 65 of 512 are left to say (a Gaussian, which knows of no curved loop, needs 111), at .08 it is 118.
# There is no plateau as the circle has one: the finer one looks, the more of what the policy does by chance comes
# into view, and below .1 the number is above 107: there the network keeps what is not of the hopper, but
# its own error. So the dimension of such data is this curve, and the 107 says how far down to believe it.
#
# The hopper's score is no gradient either, by a tenth of its Jacobian at low noise and by a third at high noise,
# where the Jacobian is small. It samples well all the same, as gauge freedom allows.
#
# ## 4. Likelihood
#
# Along the flow, $\mathrm{d} \ln p / \mathrm{d} \ln \sigma = -(N - \mathrm{tr}\,\partial D / \partial x)$: the
# log density of data is the integral of the dimensions that they do *not* have (`likelihood.log_density`, exact
# but for the solver). Left, of points of the mixture, beside the truth. Right, of windows: the data's, those
# that the model has made, and such as were cut in the middle and joined with the end of another one. A spliced
# window has the right numbers in every step, and at one place an impossible step.

# %%
log_density = jax.jit(likelihood.log_density, static_argnames="probes")
points = draw(jax.random.key(12), mixture, 400)
FINEST = 0.05
flow = np.asarray(log_density(learned, points, likelihood.rising(32, FINEST, 40.0)))
exactly = np.log(np.asarray(density(points[:, 0], FINEST)))

half = windows.shape[1] // 2
spliced = jnp.concatenate([windows[:COUNT, :half], windows[COUNT:, half:]], axis=1)
sets = {"data": windows[:COUNT], "made": jnp.asarray(chain[-1]), "spliced": spliced}
told = log_density(
    denoiser,
    jnp.concatenate(list(sets.values())),
    likelihood.rising(12, FINEST, 40.0),
    key=jax.random.key(13),
    probes=1,
)
nats = dict(zip(sets, np.split(np.asarray(told) / windows[0].size, len(sets))))

figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.7), layout="constrained")
axes[0].plot(exactly, flow, ".", color=LEARNED, markersize=3)
ends = [exactly.min(), exactly.max()]
axes[0].plot(ends, ends, color=DATA, linewidth=0.6)
axes[0].set(xlabel="exact (nats)", ylabel="learned, by the flow (nats)", title="mixture: log density")
bins = np.linspace(min(v.min() for v in nats.values()), max(v.max() for v in nats.values()), 25)
for (name, values), colour in zip(nats.items(), (DATA, LEARNED, GUIDED)):
    axes[1].hist(values, bins, color=colour, alpha=0.6, label=name)
axes[1].set(xlabel="log density (nats for each number)", title=f"hopper: {COUNT} windows of each")
axes[1].legend(frameon=False, fontsize=7)
plt.show()

auroc = np.mean(nats["data"][:, None] > nats["spliced"][None])
print(f"mixture: mean log density {flow.mean():.3f}, exact {exactly.mean():.3f}")
print(
    "hopper:",
    ", ".join(f"{name} {values.mean():.3f}" for name, values in nats.items()),
    "nats for each number",
)
print(f"a data window is likelier than a spliced one in {auroc:.1%} of pairs")
assert abs(flow.mean() - exactly.mean()) < 0.1 and auroc > 0.8

# %% [markdown]
# ## 5. Guidance is a vector added to the score
#
# We want samples of the data's density tilted by a value, $q(x_0) \propto p(x_0)\,e^{c\,V(x_0)}$. Its noisy
# score is
#
# $$\nabla\log q(x;\sigma) = \nabla\log p(x;\sigma) +
# \underbrace{\nabla\log \mathbb{E}\big[e^{c V(x_0)} \,\big|\, x\big]}_{\text{the guidance vector}} .$$
#
# `guidance.value_guided` takes the expectation for a Gaussian around the denoised point, with the spread that
# the denoiser's own Jacobian tells. For $V = -\tfrac12\lVert x_0 - a\rVert^2$ the tilted mixture is a mixture
# again, so we can see what that costs.

# %%
target, c = jnp.array([0.9, 0.6]), 3.0


def nearness(target, x, sigma):
    """[B], the value of points `x` [B, 1, 2] (their noise level is not needed)."""
    return -0.5 * jnp.sum(jnp.square(x - target), axis=(1, 2))


guided = guidance.value_guided(learned, bind(nearness, target), c, covariance="jacobian", steps=2)
precision = 1 / jnp.square(stds) + c  # of the tilted components
tilted_means = (means / jnp.square(stds)[:, None] + c * target) / precision[:, None]
spread = jnp.square(stds) + 1 / c
evidence = weights / spread * jnp.exp(-0.5 * jnp.sum(jnp.square(means - target), -1) / spread)
tilted = (evidence / evidence.sum(), tilted_means, 1 / jnp.sqrt(precision))
product = exact.mixture(*tilted)

sigma = jnp.float32(0.5)
batch = jnp.full(len(grid), sigma)
plain, exactly = field(learned, grid, batch), field(product, grid, batch)
approximate = field(guided, grid, batch)
figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.1), layout="constrained", sharey=True)
shade(axes[0], np.sqrt(density(fine, sigma)))
arrows(axes[0], sigma * plain, LEARNED)
axes[0].set_title("score of the data")
arrows(axes[1], sigma * (exactly - field(truth, grid, batch)), EXACT)
arrows(axes[1], sigma * (approximate - plain), GUIDED)
axes[1].set_title("guidance vector (red), exact (orange)")
shade(axes[2], np.sqrt(density(fine, sigma, *tilted)))
arrows(axes[2], sigma * approximate, GUIDED)
axes[2].set_title("their sum, over the tilted density")
for axis in axes:
    axis.plot(*target, "*", color=DATA, markersize=9, markeredgecolor="white")
    square(axis)
    axis.set_xlabel("$x_1$")
axes[0].set_ylabel("$x_2$")
figure.suptitle("$\\sigma$ = 0.5; the star is where the value is highest")
plt.show()

# %% [markdown]
# Next: [policy-guided diffusion](02_policy_guided_diffusion.ipynb) moves such windows to what another policy
# would do.
