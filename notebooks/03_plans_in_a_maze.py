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
# are given. `jdp` comes with such a planner. Here it plays, and is then taken apart:
#
# 1. D4RL's **maze2d** in closed loop, with its score;
# 2. **many goals**, with pictures and a film;
# 3. how a plan **comes out of noise**, and where it goes wrong;
# 4. what it means to **give** the ends: three ways to do it, and what each costs;
# 5. a **value** that steers, where nothing is given;
# 6. **warm starts**, which keep most of the last plan;
# 7. a cost of your own that **steers** the closed loop.
#
# It needs `pip install -e ".[robotics]"` for the maze's simulator (part of `".[notebooks]"`), and takes about
# a minute on two CPU cores. Nothing is downloaded. One small model is trained, in section 4, for it has to be
# one that never saw an end.

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
from jdp.data.recipes import Making
from jdp.diffusion import guidance, samplers, schedules, warm_start
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.plan_models import model
from jdp.networks import NetworkConfig, parameter_count
from jdp.tasks import maze_of
from jdp.types import bind

plt.rcParams.update({"figure.dpi": 100, "font.size": 8})
PLAN, PATH, GOAL = "#4878a8", "#c44e52", "#e0a030"


def small(figure):
    """A figure of `jdp.plotting`, which draws for print, at the size of this page."""
    figure.set_dpi(110)
    return figure


# %% [markdown]
# ## 1. A trained planner
#
# `jdp.load_pretrained` gives a planner with its weights, and the card of the run that trained it. A planner of
# `jdp.planners` is a `Method`, as agents and diffusion policies are: a `learner` and a `policy`. Observations
# of the ball are `[x, y, vx, vy]`, actions push it.

# %%
run = jdp.load_pretrained("maze2d-umaze-diffuser")
state, settings, spec, scale = run.state(), run.settings, run.spec, run.state().scale
maze = maze_of(spec)
ROWS, STRIDE = settings.horizon // settings.stride, settings.stride
card = jdp.evaluation.normalised_score(run.scores["returns"][0], spec.score_range)
print(f"{run.name}, {parameter_count(state.model.ema):,} parameters")
print(f"trained on {run.written['dataset']}")
print(f"in {run.config['updates']:,} updates of {run.config['batch_size']} plans, by\n{run.command}")
print(f"a plan: {ROWS} rows, {STRIDE} steps apart, out of noise in {settings.sampling.steps} network calls")
print(f"score of its card: {card.mean():.1f} in {len(card)} episodes")

# %% [markdown]
# In maze2d the goal is the same in every episode, starts are random, and each of the 300 steps that the ball is
# within .5 of the goal counts 1. So half of the task is to stay. The policy draws **one** plan when an episode
# begins; a controller follows it and then rests at its end.

# %%
EPISODES = 16


def play(method, many_goals):
    """Episodes of the same starts under any planner of these weights, with the plans that it made."""
    recorder, make = loops.Recorder(EPISODES), jdp.evaluation.environment_maker(spec, many_goals=many_goals)
    options = {"episodes": EPISODES, "seed": 10, "observations": True}
    played = loops.play(method.policy, jax.random.key(9), state, make, watch=recorder, **options)
    return played, plotting.episodes(spec, played, recorder)


def pictures(played, episodes, which, title):
    """Some of the episodes with their plans."""
    figure = small(plotting.plans(maze, [episodes[i] for i in which], title=title))
    figure.suptitle(f"{title}: plan (blue), path (red), goal", fontsize=8)
    for axis, i in zip(figure.axes, which):
        axis.set_title(f"{played.returns[i]:.0f} of {played.lengths[i]} steps at the goal", fontsize=7)
    return figure


played, episodes = play(run.method, many_goals=False)
scores = jdp.evaluation.normalised_score(played.returns, spec.score_range)
error = scores.std(ddof=1) / np.sqrt(EPISODES)
print(
    f"score of {EPISODES} episodes: {scores.mean():.1f} ± {error:.1f} (standard error); card: {card.mean():.1f}"
)
assert abs(scores.mean() - card.mean()) < 4 * np.hypot(error, card.std() / np.sqrt(len(card)))
order = np.argsort(played.returns)
pictures(
    played,
    episodes,
    [*order[:2], *order[-2:]],
    "The two episodes with the lowest return and the two with the highest",
)

# %% [markdown]
# Where the ball begins at the far end of the U the plan cuts through the wall. The ball slides along the wall
# and arrives, but late. Section 3 says why.
#
# ## 2. Many goals
#
# The network never saw the one goal of maze2d as anything special: it learned plans between any two states of
# the data. So it reaches others too (Multi2D, in the paper), and nothing is trained again.

# %%
played, episodes = play(run.method, many_goals=True)
scores = jdp.evaluation.normalised_score(played.returns, spec.score_range)
print(f"score with a goal of its own for each of {EPISODES} episodes: {scores.mean():.1f}")
assert played.success.mean() > 0.8
lengths = [np.linalg.norm(np.diff(e.path, axis=0), axis=-1).sum() for e in episodes]
furthest = np.argsort(lengths)[::-1]
pictures(played, episodes, furthest[:4], "The four longest ways")

# %% [markdown]
# The second of them as a film, its first half, with the plan in blue:

# %%
moving = episodes[furthest[1]]
moving = moving._replace(path=moving.path[:150])
plotting.save_film(
    Path("film.png"), plotting.film(maze, moving, title="closed loop", frames=40), milliseconds=80
)
display(Image("film.png"))

# %% [markdown]
# ## 3. A plan comes out of noise
#
# `planners.denoising` shows how a plan was drawn. Its first row, the present, and the position in its last row,
# the goal, are known from the beginning; all others are noise that the network takes away level by level.

# %%
START, END = (-1.0, 1.0), (1.0, -1.0)
here, there = jnp.array([[*START, 0.0, 0.0]]), jnp.array([END])
chain, levels = jdp.planners.denoising(settings, spec, jax.random.key(3), state, here, there)
small(plotting.denoising(maze, np.asarray(chain[:, 0]), levels.tolist(), title="A plan from noise to data"))

# %% [markdown]
# Inside it is a denoiser, a sampler and a schedule, which can be called apart. `hold` gives entries: the
# network is **shown** them without noise, as it was in training.
#
# From one start we plan to three goals, each further round the U. A plan spans 128 steps, in which the ball
# gets about four cells far. Rows that lie further apart than any in the data (dashed) give away a plan that
# does not connect.

# %%
COUNT = 64
data = jdp.data.load("maze2d-umaze-v1", source="recipe", making=Making(rows=50_000))
rows = jax.tree.map(jnp.asarray, jdp.data.segment_rows(data, settings.horizon))
stretches = jdp.data.SegmentDraw(tuple(range(0, settings.horizon, STRIDE)))
seen = np.asarray(jdp.data.batches(stretches, COUNT)(jax.random.key(4), rows).observation)[..., :2]

shown = model(settings.model).denoiser(state.model, jnp.zeros((COUNT, 0)))  # of 64 plans, on no condition
sigmas = settings.sampling.sigmas()
sample = jax.jit(samplers.dpmpp_2m)
noise = sigmas[0] * jax.random.normal(jax.random.key(3), (COUNT, ROWS, 4))
first = jnp.zeros(noise.shape, bool).at[:, 0].set(True)
both = first.at[:, -1, :2].set(True)


def known(start, end=(0.0, 0.0)):
    """`noise`-like: a start at rest in row 0, the position `end` in the last row, standardised."""
    here, there = scale.observation(jnp.array([*start, 0.0, 0.0])), scale.goal(jnp.array(end), spec)
    return jnp.zeros_like(noise).at[:, 0].set(here).at[:, -1, :2].set(there)


def places(plans):
    """[n, 32, 2], positions in the maze of standardised plans."""
    return np.asarray(scale.observation.inverse(plans))[..., :2]


def strides(ways):
    """[n, 31], how far apart the rows of plans are."""
    return np.linalg.norm(np.diff(ways, axis=1), axis=-1)


def in_walls(ways):
    """The share of the points of `ways` [n, 32, 2] that lie in a wall."""
    return 1 - maze.is_free(ways).mean()


def show(axis, ways, title, start=None, end=None, colour=PLAN, marks=".-"):
    plotting.draw_maze(axis, maze)
    for way in ways[:12]:
        axis.plot(*way.T, marks, color=colour, linewidth=0.8, markersize=2.5, alpha=0.7)
    if start is not None:
        axis.plot(*start, "o", color=PATH, markersize=5)
    if end is not None:
        axis.plot(*end, "*", color=GOAL, markersize=9, markeredgecolor="white", markeredgewidth=0.5)
    axis.set_title(title, fontsize=8)


def show_strides(axis, lines):
    """Medians of `lines[name]` = (ways, colour, style)."""
    for name, (ways, colour, style) in lines.items():
        axis.plot(
            np.arange(1, ROWS),
            np.median(strides(ways), axis=0),
            style,
            color=colour,
            linewidth=1.2,
            label=name,
        )
    axis.axhline(strides(seen).max(), color="#909090", linestyle="--", linewidth=0.8)
    axis.set(xlabel="row of the plan", ylabel="distance to the row before", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7)


ends = {"near": END, "further": (0.0, -1.0), "too far": (-1.0, -1.0)}
ways = {
    name: places(sample(guidance.hold(shown, known(START, end), both), noise, sigmas))
    for name, end in ends.items()
}
figure, axes = plt.subplots(1, 5, figsize=(9.6, 2.5), layout="constrained", width_ratios=(1, 1, 1, 1, 1.3))
show(axes[0], seen, f"12 stretches of the data\n{in_walls(seen):.1%} of points in a wall", colour="#707070")
for axis, (name, end) in zip(axes[1:], ends.items()):
    show(axis, ways[name], f"{name}\n{in_walls(ways[name]):.1%} of points in a wall", START, end)
show_strides(axes[4], {name: (ways[name], PLAN, style) for name, style in zip(ends, ("-", "-.", ":"))})
plt.show()
assert in_walls(seen) == 0
assert in_walls(ways["near"]) < 0.01 and in_walls(ways["too far"]) > 0.1, "no plan is longer than its horizon"

# %% [markdown]
# The last goal cannot be reached in 128 steps. The network has never seen such a pair of ends, and draws the
# shortest thing that has both. That is what the two lowest episodes of section 1 were given.
#
# ## 4. Giving the ends
#
# There is more than one way to give the ends:
#
# - **replacing** (`guidance.inpaint`, as in the first papers): at every level the given entries are
#   overwritten. The network sees them under noise, so the rest learns of them late, when it has already
#   decided where to go;
# - **conditioning** (`guidance.condition`): the rest is moved by the gradient of the likelihood that the
#   given entries have under the denoiser. No retraining, three more passes per step, an approximation;
# - **training with them** (`guidance.hold`): the network is shown known entries without noise. That is what the
#   planners of `jdp` do.
#
# The first two are for a network that was shown no ends, and the planner's was never without. So one is
# trained here, for seconds, on a part of the planner's own data (50,000 of its 1,000,000 rows, which D4RL's
# recipe makes in a second). It is far smaller, and some of its ways cross the wall whatever is given: compare
# how plans begin and end.

# %%
STEPS = 2000
config = DiffuserConfig(steps=STEPS, batch_size=32, learning_rate=3e-3, ema=0.995, p_mean=-0.6)
unaided = trajectory_diffuser(NetworkConfig("mixer", 32, 3), config, ROWS)
batches = jdp.data.batches(stretches, config.batch_size)


def draw(key, rows):
    """[32, 32, 4], stretches of the data as plans, standardised."""
    return scale.observation(batches(key, rows).observation)


trained = jax.jit(unaided.learner.init)(jax.random.key(0), draw(jax.random.key(1), rows))
trained = loops.fit(unaided.learner.update, draw, trained, rows, key=jax.random.key(2), stop=STEPS)
denoiser = unaided.denoiser(trained)
free = places(sample(denoiser, noise, sigmas))
print(f"points of samples in a wall: {in_walls(free):.1%}")
assert in_walls(free) < 0.1

# %%
given = known(START, END)
ways = {
    "replaced": places(sample(guidance.inpaint(denoiser, given, both), noise, sigmas)),
    "conditioned": places(sample(guidance.condition(denoiser, given, both), noise, sigmas)),
    "trained with them": ways["near"],
}
figure, axes = plt.subplots(1, 5, figsize=(9.6, 2.5), layout="constrained", width_ratios=(1, 1, 1, 1, 1.3))
show(axes[0], free, f"nothing given\n{in_walls(free):.1%} of points in a wall")
for axis, (name, found) in zip(axes[1:], ways.items()):
    show(axis, found, f"{name}\n{in_walls(found):.1%} of points in a wall", START, END)
show_strides(
    axes[4], {name: (found, colour, "-") for (name, found), colour in zip(ways.items(), (PATH, GOAL, PLAN))}
)
plt.show()
jumps = {name: np.median(strides(found)[:, [0, -1]].max(axis=1)) for name, found in ways.items()}
print(
    "the longer of a plan's first and last step (median):",
    ", ".join(f"{n} {j:.2f}" for n, j in jumps.items()),
)
print(f"longest step in the data: {strides(seen).max():.2f}")
for found in ways.values():
    assert np.allclose(found[:, 0], START, atol=1e-4) and np.allclose(found[:, -1], END, atol=1e-4)
assert jumps["trained with them"] < strides(seen).max() < jumps["replaced"]
assert jumps["conditioned"] < jumps["replaced"]

# %% [markdown]
# Replaced ends are not connected with the rest: from one row to the next the ball would have to fly. Conditioned
# ones are, without any training, at four times the price of a network call. The planner's are too, at the price
# of one, but it knows no plan without them: it cannot be asked for what section 5 asks.
#
# ## 5. A value that steers
#
# Instead of an end we can give a wish: $q(\tau) \propto p(\tau)\,e^{c V(\tau)}$ (see [Learned
# scores](01_learned_scores.ipynb)). The ball starts in the middle of the U, and $V$ is the height at which
# the plan ends. With $c = 0$ some of the plans go up and some down; $c$ turns the balance, and no network is
# trained again. This too needs a network that knows no end, the small one of section 4; its start is given by
# conditioning.


# %%
def height(x, sigma):
    """[B], the standardised y of the last row of plans `x` [B, 32, 4]."""
    return x[:, -1, 1]


MIDDLE = (1.0, 0.0)
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.3), layout="constrained")
upwards = {}
for axis, c in zip(axes, (-4.0, 0.0, 1.0, 4.0)):
    steered = guidance.value_guided(denoiser, bind(height), c, covariance="jacobian")
    found = places(sample(guidance.condition(steered, known(MIDDLE), first, base=denoiser), noise, sigmas))
    upwards[c] = (found[:, -1, 1] > 0).mean()
    title = f"$c$ = {c:g}: {upwards[c]:.0%} end above\n{in_walls(found):.1%} of points in a wall"
    show(axis, found, title, MIDDLE)
plt.show()
assert upwards[-4.0] < upwards[0.0] < upwards[4.0]

# %% [markdown]
# ## 6. Warm starts
#
# A planner that plans again and again need not begin from noise alone, for the next plan is nearly the last one.
# `warm_start` adds noise of level $\sigma$ to the last plan, and the sampler walks only the levels below
# $\sigma$: fewer network calls, and the less $\sigma$, the more of the plan survives. At $\sigma_{\max}$ it is
# the cold start. Here the shipped planner has a plan, and then the goal moves.

# %%
MOVED = (0.2, -1.0)
last = jnp.broadcast_to(sample(guidance.hold(shown, given, both), noise, sigmas)[:1], noise.shape)
onwards = guidance.hold(shown, known(START, MOVED), both)
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.4), layout="constrained")
kept, jumps = {}, {}
for axis, level in zip(axes, (0.1, 0.5, 2.0, float(sigmas[0]))):
    below = schedules.truncated(sigmas, level)
    found = places(sample(onwards, warm_start(jax.random.key(6), last, level, sigmas[0]), below))
    kept[level] = np.linalg.norm(found - places(last), axis=-1).mean()
    jumps[level] = np.median(strides(found)[:, -1])
    title = f"$\\sigma$ = {level:.2g}: {len(below) - 1} network calls\n{kept[level]:.2f} away, last step {jumps[level]:.2f}"
    show(axis, found, title, START, MOVED)
    axis.plot(*places(last)[0].T, color="black", linewidth=1.5, linestyle=":")
figure.suptitle(
    "12 plans to the moved goal (blue), drawn from the last plan (dotted) under noise of level $\\sigma$",
    fontsize=9,
)
plt.show()
assert kept[0.1] < kept[0.5] < kept[2.0] < kept[float(sigmas[0])]
assert jumps[0.1] > strides(seen).max() > jumps[2.0]

# %% [markdown]
# Under little noise the plan stays where it was, and its last step jumps to the new goal, further than any step
# in the data: the goal has moved too far for so low a level. From $\sigma$ = 0.5 on it bends. (The planner of
# `maze2d` plans once, so it has no use for this; `SamplingConfig.warm_steps` is the setting of those that have.)
#
# ## 7. Steering it
#
# Every planner takes a guide, and `cost_guide` makes one of a cost of plans in the units of the task. Here the
# middle of the bend is to be avoided. `run.settings` are what the loaded planner was made of; made of them
# again, with the guide, it plays with the same weights.

# %%
CROWD = jnp.array(MIDDLE)


def crowd(observation, action):
    """[B], how much of a plan lies near the crowd."""
    near = jnp.sum(jnp.square(observation[..., :2] - CROWD), axis=-1)
    return jnp.exp(-4 * near).sum(axis=1)


steered = jdp.planners.make(settings, spec, guide=jdp.planners.cost_guide(crowd, strength=4.0))
played_steered, episodes_steered = play(steered, many_goals=True)


def gaps(episodes):
    """[n], how close each way comes to the crowd."""
    return np.array([np.linalg.norm(e.path - np.asarray(CROWD), axis=-1).min() for e in episodes])


passing = gaps(episodes) < 0.5
figure, axes = plt.subplots(1, 2, figsize=(4.6, 2.4), layout="constrained")
for axis, found, name in zip(axes, (episodes, episodes_steered), ("free", "around the crowd")):
    show(axis, [e.path for e, near in zip(found, passing) if near], name, colour=PATH, marks="-")
    axis.plot(*CROWD, "x", color="black", markersize=7)
plt.show()
free_gap, steered_gap = (np.median(gaps(found)[passing]) for found in (episodes, episodes_steered))
scores_steered = jdp.evaluation.normalised_score(played_steered.returns, spec.score_range)
print(
    f"{passing.sum()} of {EPISODES} ways pass the bend; their distance from the crowd (median): free {free_gap:.2f}, steered {steered_gap:.2f}"
)
print(f"score: free {scores.mean():.1f}, steered {scores_steered.mean():.1f}")
assert steered_gap > free_gap

# %% [markdown]
# The planner reaches what a plan of 128 steps can reach, and knows walls from data alone: a goal too far away, or
# a cost that pushes hard, and its plan goes through them. Sixteen episodes are no proof either; the table of five
# training seeds and 100 episodes each is among the [results](../docs/results.md).
#
# To go on:
#
# | | |
# |---|---|
# | the same in a larger maze | `jdp.load_pretrained("maze2d-medium-diffuser")` |
# | more episodes, with an interval | `python experiments/evaluate.py maze2d-umaze-diffuser --many-goals` |
# | train one, with tables and pictures | `python experiments/plan.py --planner diffuser --env maze2d-umaze-v1 --source recipe` |
# | another planner | `--planner hierarchical`, `veteran`, `decision_diffuser`, `adapt_diffuser`, `graph_guided` |
# | a maze of your own size | `python experiments/collect_pointmaze.py --maze medium --steps 100000` |
# | how planners are built, and their tables | [planners](../docs/planning.md) |
