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
# # Plans in a maze
#
# [Diffuser](https://arxiv.org/abs/2205.09991) turned planning into sampling: a model that has seen how a ball
# moves through a maze draws whole ways through it, and a plan from here to there is a sample whose two ends
# are given. Here you see
#
# 1. ways that come out of noise;
# 2. what it means to **give** the ends: three ways to do it, and how they fail;
# 3. a **value** that steers, where nothing is given;
# 4. **warm starts**, which keep most of the last plan;
# 5. a planner in **closed loop**, with a film;
# 6. a cost of your own that **steers** it there.
#
# It needs `pip install -e ".[robotics]"` for the maze's simulator (part of `".[notebooks]"`), and takes about
# a minute on two CPU cores. The maze is the smallest one and training lasts seconds: `python
# experiments/plan.py --env pointmaze-large` is the real thing.

# %%
# %matplotlib inline
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import jdp
from jdp import loops, plotting
from jdp.diffusion import guidance, samplers, schedules, warm_start
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.loops import fit
from jdp.networks import NetworkConfig
from jdp.planners import ModelConfig, SamplingConfig
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.tasks import maze_of
from jdp.types import bind

plt.rcParams.update({"figure.dpi": 100, "font.size": 8})
PLAN, PATH, GOAL = "#4878a8", "#c44e52", "#e0a030"

# %% [markdown]
# ## 1. Ways out of noise
#
# The bundled dataset holds 50,000 steps of a ball that a noisy controller pushes from one random place to the
# next, without a word about goals. Observations are `[x, y, vx, vy]`. A plan spans 128 steps; only every 8th
# of its states is drawn, 16 rows in all.

# %%
data = jdp.data.load("pointmaze-umaze", source="bundled")
maze = maze_of(data.spec)
HORIZON, STRIDE = 128, 8
offsets = tuple(range(0, HORIZON, STRIDE))
rows = jax.tree.map(jnp.asarray, jdp.data.segment_rows(data, HORIZON))
mean, std = (jnp.asarray(s) for s in (data.observations.mean(0), data.observations.std(0)))
segments = jdp.data.batches(jdp.data.SegmentDraw(offsets), 64)


def draw(key, rows):
    """[64, 16, 4], standardised states of stretches of the data."""
    return (segments(key, rows).observation - mean) / std


STEPS = 1200
diffuser = trajectory_diffuser(
    NetworkConfig("mixer", 64, 3), DiffuserConfig(steps=STEPS, ema=0.995, p_mean=-0.6), len(offsets)
)
state = jax.jit(diffuser.learner.init)(jax.random.key(0), draw(jax.random.key(1), rows))
state = fit(diffuser.learner.update, draw, state, rows, key=jax.random.key(2), stop=STEPS)
denoiser = diffuser.denoiser(state)

# %%
sigmas = schedules.karras(16, sigma_min=0.02, sigma_max=20.0)
sample = jax.jit(samplers.dpmpp_2m, static_argnames="trace")
noise = sigmas[0] * jax.random.normal(jax.random.key(3), (64, len(offsets), 4))
chain = sample(denoiser, noise, sigmas, trace=True)
plotting.denoising(
    maze,
    np.asarray(chain[:, 5] * std + mean),
    sigmas.tolist(),
    title="A way out of noise: positions at every 8th step",
)


# %%
def places(plans):
    """[n, 16, 2], positions in the maze of standardised plans."""
    return np.asarray(plans * std + mean)[..., :2]


def show(axis, ways, title, colour=PLAN, count=12):
    plotting.draw_maze(axis, maze)
    for way in ways[:count]:
        axis.plot(*way.T, ".-", color=colour, linewidth=0.8, markersize=2.5, alpha=0.7)
    axis.set_title(title, fontsize=8)


def in_walls(ways):
    """The share of the points of `ways` [n, 16, 2] that lie in a wall."""
    return 1 - maze.is_free(ways).mean()


free = places(chain[-1])
seen = np.asarray(segments(jax.random.key(4), rows).observation)[..., :2]
figure, axes = plt.subplots(1, 2, figsize=(4.6, 2.4), layout="constrained")
show(axes[0], seen, "12 stretches of the data", colour="#707070")
show(axes[1], free, "12 samples")
plt.show()
print(f"points in a wall: data {in_walls(seen):.1%}, samples {in_walls(free):.1%}")
assert in_walls(free) < 0.1

# %% [markdown]
# ## 2. Giving the ends
#
# A plan is a sample with its first state and its last position given. There is more than one way to give
# them:
#
# - **replacing** (`guidance.inpaint`, as in the first papers): at every level the given entries are
#   overwritten. The network sees them under noise, so the rest learns of them late, when it has already
#   decided where to go;
# - **conditioning** (`guidance.condition`): the rest is moved by the gradient of the likelihood that the
#   given entries have under the denoiser. No retraining, three more passes per step, an approximation;
# - **training with them**: the network is shown known entries without noise. That is what the planners of
#   `jdp` do, in section 5.
#
# A plan that does not connect gives itself away in its first step. In the data the ball never moves further
# in 8 steps than the dashed line.

# %%
START, END = jnp.array([-1.0, 1.0]), jnp.array([-1.0, -1.0])
known = jnp.zeros_like(noise)
known = known.at[:, 0].set((jnp.array([*START, 0.0, 0.0]) - mean) / std)
known = known.at[:, -1, :2].set((END - mean[:2]) / std[:2])
mask = jnp.zeros(noise.shape, bool).at[:, 0].set(True).at[:, -1, :2].set(True)
ends = {
    "replaced": guidance.inpaint(denoiser, known, mask),
    "conditioned": guidance.condition(denoiser, known, mask),
}
ways = {"nothing given": free} | {name: places(sample(d, noise, sigmas)) for name, d in ends.items()}


def strides(ways):
    """[n, 15], how far each step of a plan goes."""
    return np.linalg.norm(np.diff(ways, axis=1), axis=-1)


figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.3), layout="constrained", width_ratios=(1, 1, 1, 1.2))
for axis, (name, found) in zip(axes, ways.items()):
    show(axis, found, f"{name}\n{in_walls(found):.1%} of points in a wall")
    if name != "nothing given":
        axis.plot(*START, "o", color=PATH, markersize=5)
        axis.plot(*END, "*", color=GOAL, markersize=9)
for name, colour in (("replaced", PATH), ("conditioned", PLAN)):
    axes[3].plot(np.arange(1, 16), np.median(strides(ways[name]), axis=0), ".-", color=colour, label=name)
axes[3].axhline(
    strides(seen).max(), color="#909090", linestyle="--", linewidth=0.8, label="furthest in the data"
)
axes[3].set(xlabel="row of the plan", ylabel="length of a step (median)", ylim=(0, None))
axes[3].spines[["top", "right"]].set_visible(False)
axes[3].legend(frameon=False, fontsize=7)
plt.show()
for name in ends:
    assert np.allclose(ways[name][:, 0], START, atol=1e-4) and np.allclose(ways[name][:, -1], END, atol=1e-4)

# %% [markdown]
# ## 3. A value that steers
#
# Instead of an end we can give a wish: $q(\tau) \propto p(\tau)\,e^{c V(\tau)}$ (see [Learned
# scores](01_learned_scores.ipynb)). The ball starts in the middle of the U, and $V$ is the height at which
# the plan ends. With $c = 0$ half of the plans go up and half down; $c$ turns the balance, and no network is
# trained again. What does not change is how ways look, for that is the data's.


# %%
def height(x, sigma):
    """[B], the standardised y of the last row of plans `x` [B, 16, 4]."""
    return x[:, -1, 1]


middle = known.at[:, 0].set((jnp.array([1.0, 0.0, 0.0, 0.0]) - mean) / std)
first = jnp.zeros(noise.shape, bool).at[:, 0].set(True)
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.3), layout="constrained")
upwards = {}
for axis, c in zip(axes, (-4.0, 0.0, 1.0, 4.0)):
    steered = guidance.value_guided(denoiser, bind(height), c, covariance="jacobian")
    found = places(sample(guidance.inpaint(steered, middle, first), noise, sigmas))
    upwards[c] = (found[:, -1, 1] > 0).mean()
    show(axis, found, f"$c$ = {c:g}: {upwards[c]:.0%} end above\n{in_walls(found):.1%} of points in a wall")
    axis.plot(1, 0, "o", color=PATH, markersize=5)
plt.show()
assert upwards[-4.0] < upwards[0.0] < upwards[4.0]

# %% [markdown]
# ## 4. Warm starts
#
# In closed loop the next plan is nearly the last one. `warm_start` adds noise of level $\sigma$ to the last
# plan instead of beginning from noise alone, and the sampler walks only the levels below $\sigma$: fewer
# network calls, and the less $\sigma$, the more of the plan survives. At $\sigma_{\max}$ it is the cold
# start.

# %%
last = jnp.broadcast_to(sample(guidance.inpaint(denoiser, middle, first), noise, sigmas)[:1], noise.shape)
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.4), layout="constrained")
kept = {}
for axis, level in zip(axes, (0.1, 0.5, 2.0, 20.0)):
    levels = schedules.truncated(sigmas, level)
    x = warm_start(jax.random.key(6), last, level, sigmas[0])
    found = places(sample(guidance.inpaint(denoiser, middle, first), x, levels))
    kept[level] = np.linalg.norm(found[:, -1] - places(last)[:, -1], axis=-1).mean()
    show(
        axis,
        found,
        f"$\\sigma$ = {level:g}, {len(levels) - 1} network calls\nends {kept[level]:.2f} away on average",
    )
    axis.plot(*places(last)[0].T, color="black", linewidth=1.5, linestyle=":")
figure.suptitle(
    "12 plans (blue) drawn from the last plan (dotted) under noise of level $\\sigma$", fontsize=9
)
plt.show()
assert kept[0.1] < kept[2.0] < kept[20.0]

# %% [markdown]
# ## 5. A planner in closed loop
#
# A planner of `jdp.planners` is a `Method`, as agents and diffusion policies are: a `learner` and a `policy`.
# This one is Diffuser as above, but its network was **shown** the known entries while it learned, and learned
# beside it which push leads from one planned state to the next. Goals in training are later states of the same
# stretch. The policy follows a plan to its end, then draws anew.

# %%
UPDATES = 800
config = DiffuserPlannerConfig(
    horizon=HORIZON,
    stride=STRIDE,
    replan_every=64,
    candidates=1,
    model=ModelConfig(network=NetworkConfig("mixer", 64, 3), steps=UPDATES),
    sampling=SamplingConfig(sampler="dpmpp_2m", steps=10, warm_steps=0),
)
planner = jdp.planners.make(config, data.spec)
examples = jdp.data.prepared(planner.learner.draws, data)
trained = loops.train(planner.learner, examples, key=jax.random.key(7), updates=UPDATES, batch_size=64)

# %%
EPISODES, SHOWN = 12, 4
make = jdp.evaluation.environment_maker(data.spec)


def play(method):
    """What happens in the same episodes under any planner of these weights, and the plans that it made."""
    recorder, options = loops.Recorder(EPISODES), {"episodes": EPISODES, "seed": 10, "observations": True}
    played = loops.play(method.policy, jax.random.key(9), trained, make, watch=recorder, **options)
    return played, plotting.episodes(data.spec, played, recorder)


played, episodes = play(planner)
reached, low, high = jdp.evaluation.success_interval(played.success)
print(
    f"{reached:.0f} % of {EPISODES} random goals reached [{low:.0f}, {high:.0f}], Clopper and Pearson's interval"
)
furthest = np.argsort([-np.linalg.norm(e.path[0] - e.goal) for e in episodes])
plotting.plans(maze, [episodes[i] for i in furthest[:SHOWN]], title="Diffuser, the four furthest goals")

# %% [markdown]
# And as a film, with the plan in blue:

# %%
longest = max(range(EPISODES), key=lambda i: played.lengths[i] * played.success[i])
frames = plotting.film(maze, episodes[longest], title="closed loop", frames=40)
plotting.save_film(Path("film.png"), frames, milliseconds=80)
display(Image("film.png"))

# %% [markdown]
# ## 6. Steering it
#
# Every planner takes a guide, and `cost_guide` makes one of a cost of plans in the units of the task. Here the
# middle of the bend is to be avoided. The weights are those from above: nothing is trained again.

# %%
CROWD = jnp.array([1.0, 0.0])


def crowd(observation, action):
    """[B], how much of a plan lies near the crowd."""
    near = jnp.sum(jnp.square(observation[..., :2] - CROWD), axis=-1)
    return jnp.exp(-4 * near).sum(axis=1)


steered = jdp.planners.make(config, data.spec, guide=jdp.planners.cost_guide(crowd, strength=2.0))
played_steered, episodes_steered = play(steered)


def closest(episodes):
    """How close the ways through the bend come to the crowd, on average."""
    gaps = [np.linalg.norm(e.path - np.asarray(CROWD), axis=-1).min() for e in episodes]
    return np.mean([gap for gap in gaps if gap < 0.5])


figure, axes = plt.subplots(1, 2, figsize=(4.6, 2.4), layout="constrained")
for axis, found, name in zip(axes, (episodes, episodes_steered), ("free", "around the crowd")):
    show(axis, [e.path for e in found], name, colour=PATH)
    axis.plot(*CROWD, "x", color="black", markersize=7)
plt.show()
print(f"closest to the crowd: free {closest(episodes):.2f}, steered {closest(episodes_steered):.2f}; "
      f"goals reached: {played.success.mean():.0%}, {played_steered.success.mean():.0%}")  # fmt: skip

# %% [markdown]
# The goals are reached because this maze is small, every way through it is in the data many times, and a push
# towards the next planned state forgives much. A dozen plans that look right are no proof: in the larger maze
# the same planner reaches about three goals in four after minutes of training ([the
# tables](../docs/planning.md)). Replaced ends, wrong values or too few updates show there first.
#
# To go on:
#
# | | |
# |---|---|
# | the large maze, with tables and pictures | `python experiments/plan.py --planner diffuser --env pointmaze-large` |
# | another planner | `--planner hierarchical`, `veteran`, `decision_diffuser`, `adapt_diffuser`, `graph_guided` |
# | a maze of your own size | `python experiments/collect_pointmaze.py --maze medium --steps 100000` |
# | a trained planner in a notebook | `jdp.load_run("results/plan/pointmaze-large/<run>")` |
