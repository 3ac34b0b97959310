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
# # Policy-guided diffusion, step by step
#
# An offline agent learns from what another policy did. [Policy-guided
# diffusion](https://arxiv.org/abs/2404.06356) makes it new experience, closer to what the agent itself would
# do: a diffusion model of trajectory windows is trained on the dataset once, and its samples are then guided
# by the agent's own likelihood. Here is the whole way in small:
#
# dataset → windows → normaliser → diffuser → samples → guidance → synthetic experience → agent → a short
# evaluation
#
# `python experiments/pgd_d4rl.py --env hopper-medium` is the same at full length, with seeds, checkpoints and
# intervals. This notebook takes less than a minute on two CPU cores and downloads nothing. Its models are
# trained for seconds: look at what each step does, not at how well.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp import plotting, synthesis
from jdp.agents import TD3BCConfig, td3_bc
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.loops import fit
from jdp.networks import NetworkConfig, parameter_count

plt.rcParams.update({"figure.dpi": 100, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
COLOURS = plotting.figures.COLOURS


def small(figure):
    """A figure of `jdp.plotting`, which draws for print, at the size of this page."""
    figure.set_dpi(100)
    return figure


# %% [markdown]
# ## 1. The dataset
#
# `jdp.data.load` finds D4RL files, Minari ids, files of your own, or what comes with the package. It returns
# flat rows in time order and where episodes begin and end, in numpy, with the facts about the task and where
# the data came from.

# %%
data = jdp.data.load("hopper-medium", source="bundled")
print(f"{data.origin.name}: {len(data):,} steps, {len(data.starts)} episodes, task {data.spec.env_id}")
scores = jdp.evaluation.normalised_score(data.returns, data.spec.score_range)

figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.2), layout="constrained")
axes[0].hist(scores, bins=40, color=COLOURS["data"])
axes[0].set(xlabel="normalised score of an episode", ylabel="episodes")
axes[1].plot(data.observations[:200, 0], color=COLOURS["data"], linewidth=1)
axes[1].set(xlabel="step of the first episode", ylabel="height of the torso (m)")
plt.show()

# %% [markdown]
# ## 2. Windows and the normaliser
#
# The model sees windows of 16 steps. A window is two numbers, where it starts and where its episode ends, so
# a hundred thousand overlapping windows cost no memory. A window never crosses an episode, but it may run
# past a **terminal**: then the last row repeats, with the terminal flag up. So the model learns that episodes
# can end, at any place in a window.
#
# A row is `[observation 11, action 3, reward, terminal]`. The normaliser standardises it, with actions before
# their $\tanh$, so that what the model draws is always a legal action, and leaves the flag at 0 or 1.

# %%
LENGTH = 16
windows = jdp.data.windows(data, LENGTH)
normaliser = jdp.data.fit_normaliser(data)
packed, rows = jdp.data.training_rows(data, normaliser)
CHANNELS = packed.shape[1]
past = windows.starts + LENGTH - 1 >= windows.last
print(
    f"{len(windows.starts):,} windows of {LENGTH} steps x {CHANNELS} channels; {past.mean():.1%} reach an episode's end"
)

back = normaliser.decode(
    normaliser.encode(data.observations, data.actions, data.rewards, data.terminals * 1.0)
)
assert np.allclose(back[0], data.observations, atol=1e-4) and np.allclose(back[1], data.actions, atol=2e-3)

at = np.flatnonzero(rows.terminal[windows.last] > 0)
ending = at[np.argmax(windows.starts[at] + LENGTH - 4 >= windows.last[at])]
index = np.minimum(windows.starts[ending] + np.arange(LENGTH), windows.last[ending])
figure, axis = plt.subplots(figsize=(6.6, 2.4), layout="constrained")
picture = axis.imshow(packed[index].T, aspect="auto", cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest")
axis.set_yticks([5, 12, 14, 15], ["observation 0-10", "action 0-2", "reward", "terminal"])
axis.hlines([10.5, 13.5, 14.5], -0.5, LENGTH - 0.5, color="black", linewidth=0.5)
axis.set(xlabel="step of the window", title="a window that runs past a terminal, as the model sees it")
figure.colorbar(picture, label="standardised")
plt.show()

# %% [markdown]
# ## 3. The diffuser
#
# `trajectory_diffuser` is three pure functions, and `fit` runs them in one compiled loop. `draw_windows`
# gathers a batch on the device.

# %%
STEPS = 1200
diffuser = trajectory_diffuser(NetworkConfig("residual_unet", 32, 2), DiffuserConfig(steps=STEPS, ema=0.995))
draw = synthesis.draw_windows(64, LENGTH)
source = (jnp.asarray(packed), jnp.asarray(windows.starts), jnp.asarray(windows.last))
state = jax.jit(diffuser.init)(jax.random.key(0), draw(jax.random.key(1), source))
losses = []
state = fit(
    diffuser.update,
    draw,
    state,
    source,
    key=jax.random.key(2),
    stop=STEPS,
    chunk=50,
    after=lambda step, state, metrics: losses.append((step, float(metrics["loss"]))),
)
denoiser = diffuser.denoiser(state)
figure, axis = plt.subplots(figsize=(3.6, 2.2), layout="constrained")
axis.plot(*zip(*losses), color=COLOURS["unguided"])
axis.set(
    xlabel="step",
    ylabel="denoising loss",
    ylim=(0, None),
    title=f"{parameter_count(state.params):,} parameters",
)
plt.show()

# %% [markdown]
# ## 4. Samples
#
# From noise down 20 levels. `generate` draws any number in batches of one compiled program; `experience`
# takes the samples back to the units of the task, and marks what counts: nothing after a generated terminal
# does.

# %%
COUNT, sampler = 256, synthesis.SamplerConfig(steps=20, batch=256)
sizes = {"count": COUNT, "length": LENGTH, "channels": CHANNELS}
unguided = synthesis.experience(synthesis.generate(jax.random.key(3), denoiser, sampler, **sizes), normaliser)
print(
    "observations",
    unguided.observation.shape,
    "actions",
    unguided.action.shape,
    "[agents, windows, steps, channels]",
)
print(
    f"terminal steps: data {data.terminals.mean():.2%}, generated {unguided.terminal.sum() / unguided.valid.sum():.2%}"
)

names = [
    "height",
    "torso angle",
    "forward velocity",
    "vertical velocity",
    "action 0",
    "action 1",
    "action 2",
    "reward",
]


def columns(observation, action, reward):
    return np.concatenate([observation[:, [0, 1, 5, 6]], action, reward[:, None]], axis=1)


sets = {
    "data": columns(data.observations, data.actions, data.rewards),
    "unguided": columns(*(field[unguided.valid] for field in unguided[:3])),
}
small(plotting.marginals(sets, names, title="data and unguided samples"))

# %% [markdown]
# Marginals say little about dynamics. The simulator does: it is set to each generated state, takes the
# generated action, and says what should have come next. Errors are in units of the data's spread, and the
# data's own are the rounding of float32.

# %%
simulator = jdp.evaluation.Simulator(data.spec.env_id)


def dynamics(observation, action, reward, valid, count=64):
    return jdp.evaluation.dynamics_error(
        simulator, observation[:count], action[:count], reward[:count], valid[:count, :-1],
        data.observations.std(0), float(data.rewards.std()),
    )  # fmt: skip


whole = windows.starts[~past][:: len(windows.starts) // 64]
real = rows.observation[whole[:, None] + np.arange(LENGTH)], rows.action[whole[:, None] + np.arange(LENGTH)]
shown = simulator.determined(real[0])  # hopper hides velocities beyond 10
of_data = dynamics(*real, rows.reward[whole[:, None] + np.arange(LENGTH)], shown)
of_samples = dynamics(*(field[0] for field in unguided[:3]), unguided.valid[0])
print(f"median dynamics error: data {of_data.median:.1e}, unguided samples {of_samples.median:.1e}")
assert of_data.median < 1e-10

# %% [markdown]
# ## 5. An agent
#
# TD3+BC, two seeds at once: an agent is three pure functions too, so `vmap` over its state trains many. Here
# they learn from the dataset alone for a moment, to have opinions that differ from the behaviour policy's.

# %%
SEEDS, UPDATES, BATCH = 2, 1000, 128
agent = td3_bc(TD3BCConfig(hidden=(64, 64)), data.spec)
transitions = jdp.data.transitions(data)


def update_all(key, states, batch):
    return jax.vmap(agent.update)(jax.random.split(key, SEEDS), states, batch)


def train(states, pool, real_share, key):
    """`UPDATES` more updates of all agents on batches of which `real_share` is real."""
    draw = synthesis.draw_batches(
        agents=SEEDS, batches=agent.batches, batch_size=BATCH, real_share=real_share,
        dims=(data.spec.observation_dim, data.spec.action_dim),
    )  # fmt: skip
    return fit(update_all, draw, states, pool, key=key, stop=UPDATES, chunk=UPDATES, batch_axis=1)


def begin():
    """New agents, the same at every call (`fit` overwrites the state that it is given)."""
    init = jax.jit(jax.vmap(agent.init, in_axes=(0, None)))
    return init(jax.random.split(jax.random.key(4), SEEDS), transitions)


agents = train(begin(), synthesis.pool(transitions), 1.0, jax.random.key(5))


def likelihood(seed, observation, action, valid=None):
    """Mean log-likelihood of actions under a Gaussian of std 1 around one agent's."""
    one = jax.tree.map(lambda leaf: leaf[seed], agents)
    return jdp.evaluation.action_log_likelihood(agent.act, one, observation, action, valid=valid).summary


on_data = likelihood(0, data.observations[None, :2000], data.actions[None, :2000]).estimate
print(
    f"log-likelihood of the dataset's actions under agent 0: {on_data:.3f}; at most {-1.5 * np.log(2 * np.pi):.3f}"
)

# %% [markdown]
# ## 6. Guidance
#
# We want windows from $q(\tau) \propto p(\tau) \prod_t \pi(a_t \mid s_t)^c$. The score of the noisy $q$ is
# that of $p$ plus a guidance vector,
#
# $$\nabla \log q(x; \sigma) = \nabla \log p(x; \sigma) + \nabla \log \mathbb{E}\Big[\textstyle\prod_t \pi(a_t \mid s_t)^c \,\Big|\, x\Big],$$
#
# with the expectation over the clean windows that $x$ may come from. `synthesis.guide` wraps the denoiser: it
# needs no training, and the agents are arguments of the compiled sampler, so that new agents compile nothing.
# With two agents the windows come in two blocks, each guided by its own.

# %%
made = {0.0: synthesis.Experience(*(np.broadcast_to(f, (SEEDS, *f.shape[1:])) for f in unguided))}
for c in (1.0, 4.0, 16.0):
    guided = synthesis.guide(
        denoiser, agent.act, agents, normaliser, synthesis.GuidanceConfig(coefficient=c), sampler.sigmas()
    )
    x = synthesis.generate(
        jax.random.key(3), guided, sampler, **(sizes | {"count": COUNT // 2}), agents=SEEDS
    )
    made[c] = synthesis.experience(x, normaliser)

liked = np.array(
    [[likelihood(s, m.observation[s], m.action[s], m.valid[s]) for s in range(SEEDS)] for m in made.values()]
)
errors = [dynamics(*(field[0] for field in m[:3]), m.valid[0]).median for m in made.values()]
figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.4), layout="constrained")
for seed in range(SEEDS):
    middle, low, high = liked[:, seed].T
    axes[0].errorbar(np.arange(4) + 0.06 * (seed - 0.5), middle, [middle - low, high - middle], fmt="o-", markersize=3,
                     color=COLOURS["guided"], alpha=1 - 0.4 * seed, label=f"agent {seed}")  # fmt: skip
axes[0].axhline(
    -1.5 * np.log(2 * np.pi), color="#909090", linestyle="--", linewidth=0.8, label="the agent's own actions"
)
axes[0].set(ylabel="log-likelihood of actions")
axes[0].legend(frameon=False, fontsize=7)
axes[1].plot(np.arange(4), errors, "o-", color=COLOURS["guided"], markersize=3)
axes[1].set(ylabel="median dynamics error", ylim=(0, 2 * max(errors)))
for axis in axes:
    axis.set_xticks(np.arange(4), ["unguided", "1", "4", "16"])
    axis.set_xlabel("guidance coefficient $c$")
plt.show()
assert (liked[2, :, 0] > liked[0, :, 0]).all(), "guided actions are likelier under the agent that guides"

# %% [markdown]
# Guided actions are the likelier under the agent the larger $c$ is. What that could cost is on the right: if
# windows were pulled to where the model has never seen any, the simulator would disagree more. Here it does
# not: the error of a model trained for seconds outweighs what guidance does to it. The same noise with and
# without guidance, in one action channel:

# %%
x = {"unguided": made[0.0], "guided": made[4.0]}
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.3), layout="constrained", sharex=True)
for axis, window in zip(axes, (1, 2, 3)):
    for name, m in x.items():
        axis.plot(m.action[0, window, :, 0], color=COLOURS[name], label=name)
        one = jax.tree.map(lambda leaf: leaf[0], agents)
        wanted = agent.act(one, m.observation[0, window]).mean[:, 0]
        axis.plot(wanted, color=COLOURS[name], linestyle=":", linewidth=1)
    axis.set(xlabel="step of the window", ylim=(-1.05, 1.05))
axes[0].set_ylabel("action 0")
axes[0].legend(frameon=False, fontsize=7)
figure.suptitle("Generated actions (solid) and what agent 0 would do in the generated states (dotted), c = 4")
plt.show()

# %% [markdown]
# ## 7. Synthetic experience trains the agent
#
# Windows become transitions, and a pool holds them beside the real ones. The agents go on where they were,
# once on real data and once on batches of which three quarters are synthetic; in the experiment this round
# repeats, with new windows guided by the newer agents.

# %%
pool = synthesis.pool(transitions, made[1.0])
print(
    f"{pool.real.shape[0]:,} real transitions; synthetic ones of each agent: {', '.join(map(str, pool.sizes))}"
)
states = {
    "dataset": train(jax.tree.map(jnp.copy, agents), synthesis.pool(transitions), 1.0, jax.random.key(6))
}
states["guided"] = train(jax.tree.map(jnp.copy, agents), pool, 0.25, jax.random.key(6))

EPISODES = 4
act = jdp.evaluation.make_policy_step(agent)
played = {
    arm: jdp.evaluation.evaluate(act, s, data.spec.env_id, episodes=EPISODES, seed=7)
    for arm, s in states.items()
}
results = {}
for arm, p in played.items():
    found = jdp.evaluation.normalised_score(p.returns, data.spec.score_range)
    results[arm] = {"seeds": found.mean(1), "interval": (found.mean(), np.nan, np.nan)}
    print(
        f"{arm:<8} score of each seed: {', '.join(f'{v:.1f}' for v in found.mean(1))} ({EPISODES} episodes)"
    )
small(plotting.bars(results, behaviour=scores.mean(), title="2 seeds, 2,000 updates"))

# %% [markdown]
# Two seeds, four episodes and two thousand updates are no comparison: which arm is ahead here is chance, and
# both are far from trained. What the experiment finds after longer training is in the [README](../README.md):
# guidance makes actions likelier at no cost in dynamics error, and on this dataset no synthetic set raised
# the score.
#
# To go on:
#
# | | |
# |---|---|
# | the whole experiment, four arms | `python experiments/pgd_d4rl.py --env hopper-medium` |
# | its models in a notebook | `run = jdp.load_run("results/pgd_d4rl/hopper-medium/<run>")` |
# | the synthetic data for another library | `--save-synthetic` |
# | what guidance is, in the plane | [Learned scores](01_learned_scores.ipynb) |
