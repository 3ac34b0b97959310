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
# # What a diffusion model learns: scores
#
# A denoiser is a function, and everything else in `jdp` (samplers, guidance, planners) is made of such
# functions. Here we look at one where the truth is known, a mixture of Gaussians in the plane, which is learned
# here; and at one where it is not, windows of a hopping robot, with the diffuser that comes with `jdp`:
#
# 1. **score fields** at one noise level after another, learned beside exact;
# 2. **how wrong** the learned score is, level by level, and why the training loss does not tell;
# 3. **denoising paths**, from noise to data;
# 4. **guidance**: the vector that is added to the score, against the closed form of what it stands for;
# 5. the same for a **hopper**, where nobody knows the exact score.
#
# About a minute on two CPU cores, half of it compilation; nothing is downloaded.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp.data.draws import WindowRows
from jdp.diffusion import exact, guidance, samplers, schedules, score
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.loops import fit
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from jdp.types import bind

plt.rcParams.update({"figure.dpi": 100, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
DATA, EXACT, LEARNED, GUIDED = "#404040", "#dd9a3c", "#4878a8", "#c44e52"

# %% [markdown]
# ## 1. Noise, and the way back
#
# Add noise of level $\sigma$ to data, $x = x_0 + \sigma\,\varepsilon$ with $\varepsilon \sim N(0, I)$. The
# **denoiser** is the mean of what the data may have been, $D(x, \sigma) = \mathbb{E}[x_0 \mid x]$, and
# Tweedie's formula makes of it the **score**, the gradient of the log density of the noisy data:
#
# $$\nabla_x \log p(x; \sigma) = \frac{D(x, \sigma) - x}{\sigma^2}.$$
#
# For a mixture $\sum_k w_k\,N(m_k, s_k^2 I)$ the denoiser is known: given the component it is a weighted mean
# of $x$ and $m_k$, and the components are weighted by how well they explain $x$. That is `exact.mixture`.

# %%
weights = jnp.array([0.5, 0.3, 0.2])
means = jnp.array([[-1.0, -0.6], [1.0, -0.7], [0.3, 1.2]])
stds = jnp.array([0.3, 0.15, 0.4])
truth = exact.mixture(weights, means, stds)


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


# %% [markdown]
# A network learns the same function from samples alone, by denoising them: the loss is
# $\mathbb{E}\,\lambda(\sigma)\,\lVert D_\theta(x_0 + \sigma\varepsilon, \sigma) - x_0\rVert^2$ over levels
# $\ln\sigma \sim N(-0.8, 1.2^2)$ ([EDM](https://arxiv.org/abs/2206.00364)). `trajectory_diffuser` is the same
# that learns whole trajectories of a robot: here they have one step and two channels.

# %%
STEPS = 1000
config = DiffuserConfig(steps=STEPS, learning_rate=5e-3, ema=0.99, p_mean=-0.8, p_std=1.2)
diffuser = trajectory_diffuser(NetworkConfig("mixer", 64, 2), config, horizon=1)
mixture = (weights, means, stds)
state = jax.jit(diffuser.learner.init)(jax.random.key(0), draw(jax.random.key(1), mixture))
losses = []
state = fit(
    diffuser.learner.update,
    draw,
    state,
    mixture,
    key=jax.random.key(2),
    stop=STEPS,
    chunk=100,
    after=lambda step, state, metrics: losses.append(float(metrics["loss"])),
)
learned = diffuser.denoiser(state)
print("loss, mean of 100 steps each:", " ".join(f"{loss:.3f}" for loss in losses))

# %% [markdown]
# ## 2. Score fields by noise level
#
# Arrows are $\sigma\,\nabla\log p$, minus the noise that the model expects to find in $x$; those longer than
# 1 are cut, so that lengths can be compared from level to level. At high noise all point to the middle; as
# $\sigma$ falls the field breaks up into basins.

# %%
LIMIT = 2.4
side = jnp.linspace(-LIMIT, LIMIT, 15)
grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 1, 2)
fine = jnp.stack(jnp.meshgrid(*[jnp.linspace(-LIMIT, LIMIT, 120)] * 2), -1)
field = jax.jit(score)


def square(axis, limit=LIMIT):
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])


def shade(axis, values):
    extent = (-LIMIT, LIMIT, -LIMIT, LIMIT)
    axis.imshow(np.sqrt(values), extent=extent, origin="lower", cmap="Greys", alpha=0.5)
    square(axis)


def cut(vectors, longest):
    """`vectors` [n, 2], none longer than 1, drawn as `longest`."""
    vectors = np.asarray(vectors).reshape(-1, 2)
    return longest * vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1.0)


def arrows(axis, vectors, colour):
    points = np.asarray(grid).reshape(-1, 2)
    vectors = cut(vectors, 2 * LIMIT / 15)
    axis.quiver(*points.T, *vectors.T, angles="xy", scale_units="xy", scale=1, width=0.006, color=colour)


levels = [2.0, 0.8, 0.3, 0.1]
figure, axes = plt.subplots(2, 4, figsize=(8.4, 4.5), layout="constrained", sharex=True, sharey=True)
for column, sigma in enumerate(levels):
    for row, (name, denoiser, colour) in enumerate([("exact", truth, EXACT), ("learned", learned, LEARNED)]):
        axis = axes[row, column]
        shade(axis, density(fine, sigma))
        arrows(axis, sigma * field(denoiser, grid, jnp.float32(sigma)), colour)
        if row == 0:
            axis.set_title(f"$\\sigma$ = {sigma:g}")
        if column == 0:
            axis.set_ylabel(f"{name}\n$x_2$")
    axes[1, column].set_xlabel("$x_1$")
figure.suptitle("Score of the noisy mixture (shade: root of its density)")
plt.show()

# %% [markdown]
# ## 3. How wrong is it?
#
# The training loss never reaches zero, for noise hides the data even from the exact denoiser. What can be
# learned is what is left: for points drawn from $p(x; \sigma)$,
#
# $$\underbrace{\mathbb{E}\lVert D_\theta - x_0\rVert^2}_{\text{what training measures}} =
# \underbrace{\mathbb{E}\lVert D - x_0\rVert^2}_{\text{what noise hides}} +
# \underbrace{\mathbb{E}\lVert D_\theta - D\rVert^2}_{\text{the error of the score}},$$
#
# Pythagoras, because $D$ is a conditional mean. The second panel shows the last term as a share of the
# score's own size: at low noise the score is dominated by $-\varepsilon/\sigma$ of single points, which is
# hard to get exactly right.

# %%
sweep = np.geomspace(0.03, 10, 15).astype(np.float32)


@jax.jit
def errors(denoiser, key, sigma):
    """Mean squared errors at one level: to the data, of the exact denoiser, between the two; and the score's size."""
    clean, noise = jax.random.split(key)
    x0 = draw(clean, mixture, 8192)
    x = x0 + sigma * jax.random.normal(noise, x0.shape)
    mine, best = denoiser(x, sigma), truth(x, sigma)
    mean = lambda v: jnp.mean(jnp.sum(jnp.square(v), axis=(1, 2)))  # noqa: E731
    return jnp.stack([mean(mine - x0), mean(best - x0), mean(mine - best), mean(best - x)])


found = np.array([errors(learned, jax.random.key(i), sigma) for i, sigma in enumerate(sweep)])
total, hidden, excess, size = found.T
relative = np.sqrt(excess / size)

figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 2.8), layout="constrained")
left.loglog(sweep, total, "o-", color=LEARNED, markersize=3, label=r"training error $\|D_\theta - x_0\|^2$")
left.loglog(
    sweep, hidden, color=EXACT, linewidth=3, alpha=0.6, zorder=0, label=r"hidden by noise $\|D - x_0\|^2$"
)
left.loglog(sweep, excess, "s-", color=GUIDED, markersize=3, label=r"error of the score $\|D_\theta - D\|^2$")
left.set(xlabel=r"noise level $\sigma$", ylabel="mean squared error")
left.legend(frameon=False, fontsize=7)
right.loglog(sweep, relative, "s-", color=GUIDED, markersize=3)
right.set(xlabel=r"noise level $\sigma$", ylabel="relative error of the score")
trained = np.exp(-0.5 * ((np.log(sweep) - config.p_mean) / config.p_std) ** 2)
right.fill_between(
    sweep, relative.min() / 2, relative.min() / 2 * 10**trained, color="#d0d0d0", linewidth=0, zorder=0
)
right.text(np.exp(config.p_mean), relative.min() * 0.6, "levels seen\nin training", ha="center", fontsize=7)
plt.show()

assert np.allclose(total, hidden + excess, rtol=0.03), "Pythagoras"
assert relative[(sweep > 0.2) & (sweep < 2)].max() < 0.2
print(
    "relative error of the score:",
    ", ".join(f"{e:.1%} at {s:.2g}" for s, e in zip(sweep[::2], relative[::2])),
)

# %% [markdown]
# ## 4. Denoising paths
#
# Noise falls along the ODE
# $\mathrm{d}x / \mathrm{d}\sigma = -\sigma\,\nabla\log p(x;\sigma) = (x - D)/\sigma$. A sampler is a function
# of a denoiser, a start and a schedule; with `trace=True` it returns the whole chain. From the same noise the
# learned and the exact denoiser go nearly the same way.

# %%
sigmas = schedules.karras(24, sigma_min=0.01, sigma_max=40.0)
heun = jax.jit(samplers.heun, static_argnames="trace")
start = sigmas[0] * jax.random.normal(jax.random.key(3), (2048, 1, 2))
chains = {name: np.asarray(heun(d, start, sigmas, trace=True))[:, :, 0] for name, d in
          [("exact", truth), ("learned", learned)]}  # fmt: skip

figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained")
shown = slice(0, 24)
for axis, zoom in zip(axes[:2], (50.0, LIMIT)):
    if zoom == LIMIT:
        shade(axis, density(fine, 0.01))
    for name, colour in [("exact", EXACT), ("learned", LEARNED)]:
        width = 2.2 if name == "exact" else 0.9
        lines = axis.plot(
            *np.moveaxis(chains[name][:, shown], -1, 0), color=colour, linewidth=width, alpha=0.8
        )
        lines[0].set_label(name)
    axis.plot(*chains["learned"][-1, shown].T, ".", color=DATA, markersize=3)
    axis.set(xlim=(-zoom, zoom), ylim=(-zoom, zoom), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
axes[0].set_title("24 paths from $\\sigma$ = 40")
axes[0].legend(frameon=False, fontsize=7, loc="upper left")
axes[1].set_title("their ends")


def nearest(points):
    """Share of `points` [n, 2] in each component, by responsibility."""
    variance = np.square(np.asarray(stds))
    gap = np.sum(np.square(points[:, None] - np.asarray(means)), axis=-1)
    logits = np.log(np.asarray(weights) / variance) - 0.5 * gap / variance
    return np.bincount(logits.argmax(1), minlength=3) / len(points)


shares = {"weights": np.asarray(weights)} | {name: nearest(chain[-1]) for name, chain in chains.items()}
for i, (name, values) in enumerate(shares.items()):
    axes[2].bar(np.arange(3) + 0.25 * (i - 1), values, 0.24, label=name, color=(DATA, EXACT, LEARNED)[i])
axes[2].set(xticks=range(3), xlabel="component", ylabel="share of 2048 samples", title="where they end")
axes[2].legend(frameon=False, fontsize=7)
plt.show()

apart = np.linalg.norm(chains["exact"][-1] - chains["learned"][-1], axis=-1)
print(
    f"ends of the same noise lie {np.median(apart):.3f} apart (median); {np.mean(apart > 0.5):.1%} change component"
)
assert np.median(apart) < 0.15 and np.abs(shares["learned"] - shares["weights"]).max() < 0.05

# %% [markdown]
# ## 5. Guidance is a vector added to the score
#
# We want samples of the data's density tilted by a value, $q(x_0) \propto p(x_0)\,e^{c\,V(x_0)}$. Its noisy
# score is
#
# $$\nabla\log q(x;\sigma) = \nabla\log p(x;\sigma) +
# \underbrace{\nabla\log \mathbb{E}\big[e^{c V(x_0)} \,\big|\, x\big]}_{\text{the guidance vector}} .$$
#
# The expectation is over what the data may have been. `guidance.value_guided` takes it for a Gaussian around
# the denoised point: with a spread equal in all directions (`"isotropic"`, no gradient through the network),
# or with the spread that the denoiser's own Jacobian tells (`"jacobian"`). For
# $V = -\tfrac12\lVert x_0 - a\rVert^2$ the tilted mixture is a mixture again, so we can see what the
# approximations cost.

# %%
target, c = jnp.array([0.9, 0.6]), 3.0


def nearness(target, x, sigma):
    """[B], the value of points `x` [B, 1, 2] (their noise level is not needed)."""
    return -0.5 * jnp.sum(jnp.square(x - target), axis=(1, 2))


value = bind(nearness, target)
guided = {
    kind: guidance.value_guided(learned, value, c, covariance=kind, steps=2)
    for kind in ("isotropic", "jacobian")
}

precision = 1 / jnp.square(stds) + c  # of the tilted components
tilted_means = (means / jnp.square(stds)[:, None] + c * target) / precision[:, None]
spread = jnp.square(stds) + 1 / c
evidence = weights / spread * jnp.exp(-0.5 * jnp.sum(jnp.square(means - target), -1) / spread)
tilted = (evidence / evidence.sum(), tilted_means, 1 / jnp.sqrt(precision))
product = exact.mixture(*tilted)

# %%
figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.1), layout="constrained", sharey=True)
sigma = jnp.float32(0.5)
batch = jnp.full(len(grid), sigma)
plain, exactly = field(learned, grid, batch), field(product, grid, batch)
approximate = field(guided["jacobian"], grid, batch)
shade(axes[0], density(fine, sigma))
arrows(axes[0], sigma * plain, LEARNED)
axes[0].set_title("score of the data")
arrows(axes[1], sigma * (exactly - field(truth, grid, batch)), EXACT)
arrows(axes[1], sigma * (approximate - plain), GUIDED)
axes[1].set_title("guidance vector (red), exact (orange)")
shade(axes[2], density(fine, sigma, *tilted))
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
# Samples tell whether it matters. The isotropic spread knows nothing of the components, so it moves points
# off them; the Jacobian knows how far each can move. Neither knows that whole components become more or less
# probable, except through the high levels, where one Gaussian around the denoised point is a poor picture of
# three components: the shares differ from the exact ones.

# %%
drawn = {"no guidance": learned, **guided, "exact": product}
sample = jax.jit(samplers.dpmpp_2m)
ends = {name: np.asarray(sample(d, start, sigmas))[:, 0] for name, d in drawn.items()}
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.7), layout="constrained", sharey=True)
for axis, (name, points) in zip(axes, ends.items()):
    shade(axis, density(fine, 0.03, *(mixture if name == "no guidance" else tilted)))
    axis.plot(*points[:1000].T, ".", markersize=1, color=LEARNED if name == "no guidance" else GUIDED)
    axis.plot(*target, "*", color=DATA, markersize=9, markeredgecolor="white")
    axis.set(title=name, xlabel="$x_1$")
axes[0].set_ylabel("$x_2$")
figure.suptitle("1000 samples over the density they should have")
plt.show()

values = {name: float(jnp.mean(value(jnp.asarray(points)[:, None], None))) for name, points in ends.items()}
print("mean value:", ", ".join(f"{name} {v:.2f}" for name, v in values.items()))
for name, points in ends.items():
    print(f"{name:<12} share of each component:", np.round(nearest(points), 2))
assert values["no guidance"] < values["jacobian"] - 0.5


# %% [markdown]
# ### Without a value: classifier-free guidance
#
# Where the network was trained with a condition and without it, guidance is an extrapolation,
# $D_u + w\,(D_c - D_u)$. Here the condition is "the third component". $w = 1$ is exact; above, the condition
# is exaggerated, and the samples leave the component on the side away from the others. That is a choice, not
# a sample of the condition.

# %%
condition = exact.mixture(jnp.ones(1), means[2:], stds[2:])
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.5), layout="constrained", sharey=True)
for axis, w in zip(axes, (0.0, 0.5, 1.0, 4.0)):
    points = np.asarray(sample(guidance.classifier_free(condition, learned, w), start, sigmas))[:, 0]
    shade(axis, density(fine, 0.03))
    axis.plot(*points[:1000].T, ".", markersize=1, color=LEARNED if w == 0 else GUIDED)
    axis.set(title=f"$w$ = {w:g}", xlabel="$x_1$")
    if w == 1:
        assert np.allclose(points.mean(0), means[2], atol=0.05) and np.allclose(
            points.std(0), stds[2], atol=0.05
        )
axes[0].set_ylabel("$x_2$")
plt.show()

# %% [markdown]
# ## 6. A hopper
#
# `jdp` comes with a diffuser of hopper's windows. Its card says what it learned from, by which command, and how
# well its steps obey the simulator. A row of a window has 11 observations, 3 actions, reward and terminal flag,
# standardised. We look at two numbers of a row: the height of the torso and its vertical velocity. In that plane
# a hop is a loop.

# %%
run = jdp.load_pretrained("hopper-medium-diffuser")
denoiser, normaliser, LENGTH = run.denoiser, run.normaliser, run.config["horizon"]
training, obeys = run.config["diffusion"], run.scores["checks"]["sets"]["unguided"]
print(f"trained on {run.written['dataset']}")
print(
    f"in {training['steps']:,} updates of {training['batch_size']} windows of {LENGTH} steps, by\n{run.command}"
)
print(
    f"its next states against the simulator's: median squared error {obeys['dynamics_median']:.1e}, standardised"
)

data = jdp.data.load("hopper-medium", source="bundled")
assert data.origin.sha256 == run.written["sha256"]
packed, _ = jdp.data.training_rows(data, normaliser)
where = jdp.data.windows(data, LENGTH)

# %% [markdown]
# ### Score fields in a plane of the window
#
# One window of the data is noised, and in its middle step the two numbers are moved over the plane while the
# others stay. Shade is where the data are. At high noise the arrows point near the middle of the data. As it
# falls they do not point to the nearest crowded place but to **one point**, the true value (star): the other
# steps of the window say where in the hop the robot is.

# %%
HEIGHT, VELOCITY, STEP = 0, 6, LENGTH // 2
pair = jnp.array([HEIGHT, VELOCITY])
window = jnp.asarray(packed[where.starts[5000] + np.arange(LENGTH)])
assert where.starts[5000] + LENGTH <= where.last[5000], "it ends before its episode"
u, v = jnp.linspace(-2.6, 2.4, 15), jnp.linspace(-2.6, 2.6, 15)
plane = jnp.stack(jnp.meshgrid(u, v), -1).reshape(-1, 2)
scale = np.asarray(normaliser.std)[[HEIGHT, VELOCITY]]
offset = np.asarray(normaliser.mean)[[HEIGHT, VELOCITY]]


corners = np.array([[-2.8, 2.6], [-2.8, 2.8]]) * scale[:, None] + offset[:, None]
counts = np.histogram2d(*data.observations[:, [HEIGHT, VELOCITY]].T, bins=90, range=corners)[0].T


def hop(axis):
    """The data in the plane, in metres and metres per second."""
    axis.imshow(
        np.log1p(counts), extent=corners.ravel(), origin="lower", aspect="auto", cmap="Greys", alpha=0.6
    )
    axis.set(xlim=corners[0], ylim=corners[1], xlabel="height (m)")


figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.5), layout="constrained", sharey=True)
for axis, sigma in zip(axes, [3.0, 1.0, 0.3, 0.1]):
    noisy = window + sigma * jax.random.normal(jax.random.key(8), window.shape)
    moved = jnp.broadcast_to(noisy, (len(plane), *noisy.shape)).at[:, STEP, pair].set(plane)
    vectors = (
        sigma * np.asarray(field(denoiser, moved, jnp.full(len(plane), sigma)))[:, STEP, [HEIGHT, VELOCITY]]
    )
    vectors = cut(vectors, 0.34) * scale
    hop(axis)
    axis.quiver(*(np.asarray(plane) * scale + offset).T, *vectors.T, angles="xy", scale_units="xy", scale=1,
                width=0.007, color=LEARNED)  # fmt: skip
    axis.plot(*(np.asarray(window)[STEP, [HEIGHT, VELOCITY]] * scale + offset), "*", color=GUIDED, markersize=10,
              markeredgecolor="white")  # fmt: skip
    axis.set_title(f"$\\sigma$ = {sigma:g}")
axes[0].set_ylabel("vertical velocity (m/s)")
figure.suptitle(f"Learned score in step {STEP} of a window of {LENGTH} (arrows no longer than 1)")
plt.show()

# %% [markdown]
# ### Denoising paths
#
# From noise, 32 network calls. The chain of one number is not a walk along the loop: it comes from far outside
# and lands somewhere in the hop. What comes out lies where the data lie and goes on as hops do, round the loop:
# that is what the dynamics error of the card says in numbers, for every number of a state.

# %%
sampler = SamplerConfig(**run.config["sampler"])
sigmas = sampler.sigmas()
noise = sigmas[0] * jax.random.normal(jax.random.key(9), (64, *window.shape))
dpmpp = jax.jit(samplers.dpmpp_2m, static_argnames="trace")
chain = np.asarray(dpmpp(denoiser, noise, sigmas, trace=True))
figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), layout="constrained", sharey=True)
paths = chain[:, :16, STEP][..., [HEIGHT, VELOCITY]] * scale + offset
for axis in axes:
    hop(axis)
axes[0].plot(*np.moveaxis(paths, -1, 0), color=LEARNED, linewidth=0.8)
axes[0].plot(*paths[-1].T, ".", color=GUIDED, markersize=4)
axes[0].set(title=f"16 denoising paths of step {STEP}", ylabel="vertical velocity (m/s)")
windows = chain[-1, :16][..., [HEIGHT, VELOCITY]] * scale + offset
axes[1].plot(*np.moveaxis(windows, -1, 0)[:, :].swapaxes(1, 2), color=LEARNED, linewidth=0.9)
axes[1].plot(*windows[:, -1].T, ".", color=GUIDED, markersize=4)
axes[1].set_title("16 windows that came out (the dot is their last step)")
plt.show()

made = chain[-1][..., [HEIGHT, VELOCITY]]
of_data = np.abs(np.diff(packed[:, [HEIGHT, VELOCITY]], axis=0))  # few of these steps join two episodes
longest = np.quantile(of_data, 0.999, axis=0)
print(
    f"steps longer than all but .1 % of the data's: {(np.abs(np.diff(made, axis=1)) > longest).any(-1).mean():.1%} of those that came out"
)
assert (np.abs(np.diff(made, axis=1)) > longest).any(-1).mean() < 0.01

# %% [markdown]
# ### Against the exact score
#
# Is it right, or does it remember? The diffuser that ships has seen all of the data, so it cannot tell. Here a
# small one learns for seconds, from windows of 8 steps, and never sees the last sixth of the episodes.
#
# Nobody knows the density of hopper's windows. But two exact denoisers bracket what can be learned from data:
#
# - that of the **Gaussian** with the windows' mean and covariance, `exact.correlated_gaussian`, the best
#   linear one;
# - that of the **training points** themselves, `exact.mixture` with spreads of zero. It is the true minimum
#   of the training loss, and useless: at low noise it returns the nearest window it remembers.
#
# On held-out windows a good network beats both: it is better than the Gaussian because hops are not Gaussian,
# and better than memory because it generalises. At high noise all three agree, for there only mean and
# covariance are left to see.

# %%
SHORT, HOPPER_STEPS = 8, 1500
where = jdp.data.windows(data, SHORT)
held_out = where.starts >= where.starts[np.searchsorted(where.starts, len(packed) * 5 // 6)]
boundary = where.last[held_out][0]  # a whole episode more or less, so that none is on both sides
held_out = where.last > boundary
inside = where.last < boundary
training = WindowRows(packed, where.starts[inside], where.last[inside])
unseen = WindowRows(packed, where.starts[held_out], where.last[held_out])
print(f"{inside.sum():,} windows to learn from, {held_out.sum():,} held out, of {packed.shape[1]} channels")

hopper_config = DiffuserConfig(steps=HOPPER_STEPS, learning_rate=3e-3, ema=0.99, p_mean=-0.6, p_std=1.4)
hopper = trajectory_diffuser(NetworkConfig("residual_unet", 32, 2), hopper_config, SHORT)
draw_batch = jdp.data.batches(hopper.learner.draws, 64)
hopper_state = jax.jit(hopper.learner.init)(
    jax.random.key(4), draw_batch(jax.random.key(5), jax.tree.map(jnp.asarray, training))
)
hopper_state = fit(
    hopper.learner.update,
    draw_batch,
    hopper_state,
    training,
    key=jax.random.key(6),
    stop=HOPPER_STEPS,
    chunk=500,
)
short = hopper.denoiser(hopper_state)

# %%
test = jdp.data.batches(hopper.learner.draws, 128)(jax.random.key(7), jax.tree.map(jnp.asarray, unseen))
POINTS = 1024
memory = jdp.data.batches(hopper.learner.draws, POINTS)(
    jax.random.key(10), jax.tree.map(jnp.asarray, training)
)
flat = memory.reshape(POINTS, -1)
points = exact.mixture(jnp.full(POINTS, 1 / POINTS), flat, jnp.zeros(POINTS))
gaussian = exact.correlated_gaussian(flat.mean(0), jnp.cov(flat.T))


@jax.jit
def test_errors(denoiser, gaussian, points, sigma):
    """Mean squared error to the held-out windows of the three denoisers, per number of a window."""
    x = test + sigma * jax.random.normal(jax.random.key(11), test.shape)
    level = jnp.full(len(test), sigma)
    remembered = points(x.reshape(len(x), -1), level).reshape(x.shape)
    return jnp.stack(
        [jnp.mean(jnp.square(y - test)) for y in (denoiser(x, level), gaussian(x, level), remembered)]
    )


sweep = np.geomspace(0.05, 20, 8).astype(np.float32)
found = np.array([test_errors(short, gaussian, points, sigma) for sigma in sweep])
figure, axis = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
for values, (name, colour, mark) in zip(
    found.T,
    [("learned", LEARNED, "o-"), ("Gaussian", EXACT, "s-"), (f"{POINTS} training windows", DATA, "^-")],
):
    axis.loglog(sweep, values, mark, color=colour, markersize=3.5, label=name)
axis.axhline(float(jnp.mean(jnp.square(test - flat.mean(0).reshape(test.shape[1:])))), color="#b0b0b0", linestyle="--",
             linewidth=0.8, label="the mean window")  # fmt: skip
axis.set(
    xlabel=r"noise level $\sigma$", ylabel="denoising error, held out", title="hopper, windows of 8 steps"
)
axis.legend(frameon=False, fontsize=7)
plt.show()

middle = (sweep > 0.2) & (sweep < 5)
assert (found[middle, 0] < found[middle, 1]).all(), "better than the best linear denoiser"
assert found[0, 0] < 0.1 * found[0, 2], "better than memory where noise is low"
for sigma, (mine, linear, remembered) in zip(sweep, found):
    print(f"sigma {sigma:6.2f}: learned {mine:.4f}, Gaussian {linear:.4f}, memory {remembered:.4f}")

# %% [markdown]
# After seconds of training the network is better than the best linear denoiser, and it is no copy of its
# data. Memory of single windows is still better than it at high noise: what is wrong there is training time,
# not the idea.
#
# Next: [policy-guided diffusion](02_policy_guided_diffusion.ipynb) moves such windows to what another policy
# would do.
