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
# # Your own environment and dataset, from zero
#
# Everything in `jdp` takes experience from files and plays in Gymnasium tasks, so bringing your own problem
# is two things: a task that Gymnasium can make, and a file of experience. Here we make both from nothing, in
# under half a minute on two CPU cores, without a download:
#
# 1. a task: a skater on a ring of ice;
# 2. a dataset: a scripted controller skates, and what it does is written as a D4RL-layout HDF5 file;
# 3. what is in it: the dataset card;
# 4. two agents, and how they skate;
# 5. the same from the command line.

# %%
import tempfile
from pathlib import Path

import gymnasium as gym
import jax
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp import loops
from jdp.agents.bc import BCConfig
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data.card import dataset_card
from jdp.data.export import save_d4rl
from jdp.types import Transition

plt.rcParams.update({"figure.dpi": 100, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
COLOURS = {"behaviour": "#808080", "BC": "#4878a8", "TD3+BC": "#c44e52"}

# %% [markdown]
# ## 1. A task
#
# A puck on ice, pushed with a force in the plane. The reward of a step is how fast it runs counterclockwise;
# who leaves the ring falls, and the episode ends. The faster, the more force it takes to stay in the bend,
# and force is limited.
#
# What `jdp` asks of a task: observations and actions are **flat vectors** (`Box` of one axis); actions within
# $[-1, 1]$ (wrap yours in `gym.wrappers.RescaleAction` if they are not); `terminated` only where the task
# itself ends, and a time limit as `max_episode_steps`, so that it comes as `truncated`.


# %%
class Skater(gym.Env):
    """Observation `[x, y, vx, vy]`, action: a force in [-1, 1]^2."""

    STEP, INNER, OUTER = 0.1, 0.7, 1.3  # seconds, and the radii of the ring

    observation_space = gym.spaces.Box(-10.0, 10.0, (4,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        angle = self.np_random.uniform(0, 2 * np.pi)
        self.place, self.velocity = np.array([np.cos(angle), np.sin(angle)]), np.zeros(2)
        return self._observation(), {}

    def step(self, action):
        self.velocity = 0.98 * self.velocity + self.STEP * np.clip(action, -1, 1)
        self.place = self.place + self.STEP * self.velocity
        radius = np.linalg.norm(self.place)
        x, y = self.place / radius
        reward = float(x * self.velocity[1] - y * self.velocity[0])
        return self._observation(), reward, bool(not self.INNER < radius < self.OUTER), False, {}

    def _observation(self):
        return np.concatenate([self.place, self.velocity]).astype(np.float32)


gym.register("Skater-v0", entry_point=Skater, max_episode_steps=100)

# %% [markdown]
# ## 2. A dataset
#
# Any controller will do. This one pushes towards a velocity along the ring, with a speed of its own in every
# episode and a good deal of noise: some episodes are slow and safe, the fast ones fall.
#
# A row is one step. Two things are easy to get wrong. The **next observation** of an episode's last step is
# not the next row, which is another episode's first. And a **terminal** is not a timeout: after a terminal
# nothing more could have been earned, after a timeout only the recording stopped.

# %%
RINGS = (Skater.INNER, Skater.OUTER)


def controller(rng, speed, observation):
    """A noisy force towards `speed` along the ring."""
    place, velocity = observation[:2], observation[2:]
    radius = np.linalg.norm(place)
    outwards = place / radius
    along = np.array([-outwards[1], outwards[0]])
    wanted = speed * along + (1 - radius) * outwards
    force = 1.5 * (wanted - velocity) - 0.7 * outwards * (velocity @ along) ** 2 / radius
    return np.clip(force + 0.8 * rng.standard_normal(2), -1, 1).astype(np.float32)


def collect(episodes, seed):
    """`(transitions [N, ...], timeouts [N])`."""
    env, rng, steps, timeouts = gym.make("Skater-v0"), np.random.default_rng(seed), [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        speed, ended = rng.uniform(0.2, 1.6), False
        while not ended:
            action = controller(rng, speed, observation)
            following, reward, terminated, truncated, _ = env.step(action)
            steps.append((observation, action, reward, following, float(terminated)))
            timeouts.append(truncated and not terminated)
            observation, ended = following, terminated or truncated
    return Transition(*(np.array(column, np.float32) for column in zip(*steps))), np.array(timeouts)


transitions, timeouts = collect(200, seed=0)
folder = Path(tempfile.mkdtemp())
save_d4rl(
    folder / "skater.hdf5",
    transitions,
    timeouts,
    env_id="Skater-v0",
    metadata={"controller": "noisy, scripted"},
)
print(f"{len(timeouts):,} steps, {int(transitions.terminal.sum())} falls, {int(timeouts.sum())} time limits")

# %% [markdown]
# ## 3. What is in it
#
# `jdp.data.load` takes the path. It checks what it reads (shapes, NaNs, actions out of bounds, flags) and
# says in one line what is wrong with a file. Nothing is lost on the way to disk and back.

# %%
data = jdp.data.load(str(folder / "skater.hdf5"))
card = dataset_card(data)
print(
    f"{card.origin.name}: task {card.spec.env_id}, {card.spec.observation_dim} observations, {card.spec.action_dim} actions"
)
print(
    f"{card.transitions:,} transitions in {card.episodes} episodes, {card.terminated_share:.0%} of which end in a fall"
)
low, quarter, median, threequarters, high = card.returns.quantiles
print(
    f"return {card.returns.mean:.1f} on average, {quarter:.1f} to {threequarters:.1f} in the middle half, best {card.returns.maximum:.1f}"
)
print(
    f"actions at their bounds: {', '.join(f'{share:.1%}' for share in card.saturated_actions)}; SACo {card.saco:.2f}"
)

assert np.array_equal(data.observations, transitions.observation)
assert np.array_equal(data.terminals, transitions.terminal > 0) and np.array_equal(data.timeouts, timeouts)


# %%
def rink(axis):
    for radius in RINGS:
        axis.add_patch(plt.Circle((0, 0), radius, fill=False, color="#3d4450"))
    axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xlabel="x", ylabel="y")


figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.6), layout="constrained")
rink(axes[0])
for start, stop in list(zip(data.starts, data.stops))[:25]:
    axes[0].plot(*data.observations[start:stop, :2].T, color=COLOURS["behaviour"], linewidth=0.6, alpha=0.6)
    if data.terminals[stop - 1]:
        axes[0].plot(*data.next_observations[stop - 1, :2], "x", color=COLOURS["TD3+BC"], markersize=5)
axes[0].set_title("25 episodes (cross: a fall)")
axes[1].hist(data.returns, bins=30, color=COLOURS["behaviour"])
axes[1].set(xlabel="return of an episode", ylabel="episodes")
axes[2].plot(data.lengths, data.returns, ".", color=COLOURS["behaviour"], markersize=3)
axes[2].set(xlabel="length (steps)", ylabel="return")
plt.show()

# %% [markdown]
# The task has no reference returns, so scores are returns here. Where you know what a random and a good
# policy earn, `jdp.evaluation.normalised_score(returns, (random, good))` puts them on D4RL's scale.
#
# ## 4. Two agents
#
# Behaviour cloning imitates the average skater. [TD3+BC](https://arxiv.org/abs/2106.06860) learns what
# actions are worth and stays near those that it has seen; of its settings only the speeds are not the
# paper's, for the task is small and time short.
#
# Each is a `Method`: its `learner` says how training begins, what one update does and which rows of a dataset it
# sees, and its `policy` acts. So one loop trains them all, three seeds at once, and another plays them. A method
# of your own is one file that says the same two things ([how](../docs/add_a_method.md)).

# %%
SEEDS, UPDATES, EPISODES = 3, 1500, 10
FAST = {"learning_rate": 1e-3, "tau": 0.02, "discount": 0.97}
agents = {
    "BC": jdp.agents.make(BCConfig(hidden=(64, 64)), data.spec),
    "TD3+BC": jdp.agents.make(TD3BCConfig(hidden=(64, 64), **FAST), data.spec),
}
make = jdp.evaluation.environment_maker(data.spec)
states, played = {}, {}
for i, (name, agent) in enumerate(agents.items()):
    rows = jdp.data.prepared(agent.learner.draws, data)
    states[name] = loops.train(
        agent.learner, rows, key=jax.random.key(i), updates=UPDATES, batch_size=256, seeds=SEEDS
    )
    played[name] = loops.play(
        agent.policy, jax.random.key(9), states[name], make, episodes=EPISODES, seeds=SEEDS, seed=1
    )

print(f"behaviour    return {data.returns.mean():5.1f}, {data.terminated.mean():.0%} of episodes fall")
for name, p in played.items():
    found = jdp.evaluation.interval(p.returns.mean(axis=1))
    print(f"{name:<12} return {found.estimate:5.1f} [{found.low:.1f}, {found.high:.1f}] (t over {SEEDS} seeds), "
          f"{p.terminated.mean():.0%} of {SEEDS * EPISODES} episodes fall")  # fmt: skip
assert played["TD3+BC"].returns.mean() > max(played["BC"].returns.mean(), data.returns.mean())


# %%
def skate(name, episodes, seed=100):
    """Paths [T, 4] of seed 0 of an agent."""
    one = jax.tree.map(lambda leaf: leaf[0], states[name])
    options = {"episodes": episodes, "seed": seed, "observations": True}
    shown = loops.play(agents[name].policy, jax.random.key(9), one, make, **options)
    return [shown.observation[: length + 1, i] for i, length in enumerate(shown.lengths)]


figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.7), layout="constrained")
for axis, name in zip(axes, agents):
    rink(axis)
    for path in skate(name, 3):
        points = axis.scatter(
            *path[:, :2].T, c=np.linalg.norm(path[:, 2:], axis=1), s=3, cmap="viridis", vmin=0, vmax=1
        )
    axis.set_title(f"{name}, three episodes")
figure.colorbar(points, ax=axes[1], label="speed")
axes[2].hist(
    data.returns,
    bins=30,
    range=(0, 90),
    density=True,
    color=COLOURS["behaviour"],
    alpha=0.5,
    label="behaviour",
)
for name in agents:
    axes[2].hist(
        played[name].returns.ravel(),
        bins=30,
        range=(0, 90),
        density=True,
        color=COLOURS[name],
        alpha=0.8,
        label=name,
    )
axes[2].set(xlabel="return of an episode", ylabel="density")
axes[2].legend(frameon=False, fontsize=7)
plt.show()

# %% [markdown]
# ## 5. From the command line
#
# The scripts run in a process of their own, which must be able to import the task. Save the cell of section
# 1, with its imports and its `gym.register`, as `skater.py`, and name the task as `module:id`: Gymnasium
# imports the module first. The dataset is the path of its file.
#
# ```
# export PYTHONPATH=.
# python experiments/dataset_card.py --env skater.hdf5
# python experiments/offline_rl.py --agent iql --env skater.hdf5 --source file --env-id skater:Skater-v0 --preset smoke
# python experiments/policies.py --policy idql --env skater.hdf5 --env-id skater:Skater-v0 --preset smoke
# python experiments/plan.py --planner diffuser --env skater.hdf5 --env-id skater:Skater-v0 --preset smoke
# python experiments/table.py --env skater.hdf5
# ```
#
# `--preset smoke` sees in a minute whether it works; leave it away for minutes of training. Written with
# `save_d4rl(..., env_id="skater:Skater-v0")`, the file names its task itself and `--env-id` is not needed.
# Data in [Minari](https://minari.farama.org) are read by their id (`--env owner/name-v0`), and
# `jdp.data.export.save_minari` writes it.
#
# Tasks with goals, such as mazes, need to say which entries of the observation a goal prescribes; `jdp` knows
# those of gymnasium-robotics and OGBench. The error of generated dynamics is measured in MuJoCo tasks only,
# whose simulator can be set to an observation.
