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
# `python experiments/pgd_d4rl.py --env hopper-medium` makes the same calls at full length, with checkpoints and
# intervals. This notebook takes about a minute on two CPU cores and downloads nothing. Its diffuser is the one
# that comes with `jdp`; its agents are trained here, for seconds: look at what each step does with them, not at
# how well they play.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp import loops, plotting, synthesis
from jdp.agents.td3_bc import TD3BCConfig
from jdp.networks import parameter_count

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
# The model sees windows of 32 steps. A window is two numbers, where it starts and where its episode ends, so
# a hundred thousand overlapping windows cost no memory. A window never crosses an episode, but it may run
# past a **terminal**: then the last row repeats, with the terminal flag up. So the model learns that episodes
# can end, at any place in a window.
#
# A row is `[observation 11, action 3, reward, terminal]`. The normaliser standardises it, with actions before
# their $\tanh$, so that what the model draws is always a legal action, and leaves the flag at 0 or 1.

# %%
LENGTH = 32
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
# `jdp.load_pretrained` gives what a run has learned, with the card of that run: the dataset, the command that
# trained it, and how well it obeys the simulator. To train one of your own takes one call,
# `loops.train_diffuser(data, network, training, LENGTH, key=key)`, or the command.

# %%
run = jdp.load_pretrained("hopper-medium-diffuser")
diffuser, checks = run.diffuser, run.scores["checks"]["sets"]["unguided"]
print(f"{parameter_count(diffuser.state.ema):,} parameters, windows of {run.config['horizon']} steps")
print(f"trained on {run.written['dataset']}")
print(
    f"in {run.config['diffusion']['steps']:,} updates of {run.config['diffusion']['batch_size']} windows, by\n{run.command}"
)
print(f"median dynamics error of its card: {checks['dynamics_median']:.1e}")

assert run.config["horizon"] == LENGTH and run.written["sha256"] == data.origin.sha256
assert np.allclose(diffuser.normaliser.mean, normaliser.mean), "its windows are those of section 2"

# %% [markdown]
# A denoiser is told a noisy window and the level of its noise, and answers with the mean of what the window may
# have been. Here is the one of section 2, under noise as large as the data's own spread. (The diffuser has
# learned from all of the data, from this window too. Errors are mean squares.)

# %%
clean = packed[index][None]
noisy = clean + jax.random.normal(jax.random.key(2), clean.shape)
denoised = jax.jit(lambda denoiser, x: denoiser(x, np.float32(1.0)))(diffuser.denoiser, noisy)
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.3), layout="constrained", sharey=True)
for axis, (name, x) in zip(axes, {"a window": clean, "$\\sigma$ = 1": noisy, "denoised": denoised}.items()):
    picture = axis.imshow(
        np.asarray(x[0]).T, aspect="auto", cmap="RdBu_r", vmin=-3, vmax=3, interpolation="nearest"
    )
    axis.hlines([10.5, 13.5, 14.5], -0.5, LENGTH - 0.5, color="black", linewidth=0.5)
    axis.set(
        xlabel="step of the window",
        title=f"{name}: error {float(np.square(x - clean).mean()):.2f}",
    )
axes[0].set(title="a window")
axes[0].set_yticks([5, 12, 14, 15], ["observation 0-10", "action 0-2", "reward", "terminal"])
figure.colorbar(picture, ax=axes, label="standardised")
plt.show()
assert np.square(denoised - clean).mean() < 0.3 * np.square(noisy - clean).mean()

# %% [markdown]
# ## 4. Samples
#
# From noise down 20 levels. `synthetic_experience` draws any number of windows in batches of one compiled
# program, takes them back to the units of the task, and marks what counts: nothing after a generated terminal
# does. Sampling begins where the windows' widest direction has drowned in noise, which the data tell.

# %%
COUNT, sampler = 128, synthesis.fit_sampler(synthesis.SamplerConfig(steps=20, batch=128), data, LENGTH)
unguided = synthesis.synthetic_experience(
    jax.random.key(3), diffuser, count=COUNT, length=LENGTH, sampler=sampler
)
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
simulator = jdp.evaluation.Simulator(data.spec)


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
print(
    f"median dynamics error: data {of_data.median:.1e}, unguided samples {of_samples.median:.1e} "
    f"(card: {checks['dynamics_median']:.1e})"
)
assert of_data.median < 1e-10
assert 0.5 < of_samples.median / checks["dynamics_median"] < 2, "as its card says"

# %% [markdown]
# The median squared error is of the order of a thousandth, that is a few hundredths of the spread of each number
# of a state. What guidance does to it is the question of section 6.

# %% [markdown]
# ## 5. An agent
#
# TD3+BC, two seeds at once. An agent is a `Method`: a `learner` of pure functions, so that `vmap` over its
# state trains many, a `policy` that acts, and a `target`, the distribution of its actions, which guidance asks
# for. Here they learn from the dataset alone for a moment, to have opinions that differ from the behaviour
# policy's.

# %%
SEEDS, UPDATES = 2, 1000
agent = jdp.agents.make(TD3BCConfig(hidden=(64, 64)), data.spec)
real = jdp.data.prepared(agent.learner.draws, data)
common = {"key": jax.random.key(4), "seeds": SEEDS, "every": UPDATES, "batch_size": 128}
agents = loops.train_in_rounds(agent, real, updates=UPDATES, **common)


def likelihood(seed, observation, action, valid=None):
    """Mean log-likelihood of actions under a Gaussian of std 1 around one agent's."""
    one = jax.tree.map(lambda leaf: leaf[seed], agents)
    return jdp.evaluation.action_log_likelihood(agent.target, one, observation, action, valid=valid).summary


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
# with the expectation over the clean windows that $x$ may come from. Given a method and the states of its
# agents, `synthetic_experience` wraps the denoiser in it (`synthesis.guide`): that needs no training, and the
# agents are arguments of the compiled sampler, so that new agents compile nothing. With two agents the windows come in two blocks, each guided by its own.

# %%
made = {0.0: jdp.data.Experience(*(f.reshape(SEEDS, COUNT // SEEDS, *f.shape[2:]) for f in unguided))}
for c in (1.0, 16.0, 256.0, 4096.0):
    made[c] = synthesis.synthetic_experience(
        jax.random.key(3),
        diffuser,
        agent,
        agents,
        count=COUNT // 2,
        length=LENGTH,
        agents=SEEDS,
        sampler=sampler,
        guidance=synthesis.GuidanceConfig(coefficient=c),
    )

liked = np.array(
    [[likelihood(s, m.observation[s], m.action[s], m.valid[s]) for s in range(SEEDS)] for m in made.values()]
)
found = [[dynamics(*(f[s] for f in m[:3]), m.valid[s]) for s in range(SEEDS)] for m in made.values()]
errors = np.array([[one.median for one in row] for row in found])
spread = np.array([[m.action[s][m.valid[s]].std(0).mean() for s in range(SEEDS)] for m in made.values()])
figure, axes = plt.subplots(1, 3, figsize=(9.0, 2.5), layout="constrained")
places = np.arange(len(made))
for seed in range(SEEDS):
    look = {"color": COLOURS["guided"], "alpha": 1 - 0.4 * seed, "markersize": 3}
    middle, low, high = liked[:, seed].T
    axes[0].errorbar(places + 0.06 * (seed - 0.5), middle, [middle - low, high - middle], fmt="o-", **look,
                     label=f"agent {seed}")  # fmt: skip
    axes[1].plot(places, errors[:, seed], "o-", **look)
    axes[2].plot(places, spread[:, seed], "o-", **look)
axes[0].axhline(
    -1.5 * np.log(2 * np.pi), color="#909090", linestyle="--", linewidth=0.8, label="the agent's own actions"
)
axes[0].set(ylabel="log-likelihood of actions")
axes[0].legend(frameon=False, fontsize=7)
axes[1].set(ylabel="median dynamics error", ylim=(0, 1.1 * errors.max()))
axes[2].axhline(
    data.actions.std(0).mean(), color=COLOURS["data"], linestyle="--", linewidth=0.8, label="data"
)
axes[2].set(ylabel="spread of actions (std)", ylim=(0, None))
axes[2].legend(frameon=False, fontsize=7)
for axis in axes:
    axis.set_xticks(places, ["unguided", "1", "16", "256", "4096"])
    axis.set_xlabel("guidance coefficient $c$")
plt.show()
for c, error in zip(made, errors):
    print(f"c = {c:g}: median dynamics error of each agent's windows", ", ".join(f"{e:.1e}" for e in error))
assert (np.diff(liked[:, :, 0], axis=0) > 0).all(), (
    "the larger c, the likelier are actions under the agent that guides"
)
assert (spread[1:] < spread[0]).all(), "what is unlikely is left out"
assert (errors[4] > 2 * errors[2]).all(), "very strong guidance costs accuracy"

size = np.abs(made[0.0].action).mean(axis=(2, 3)).ravel()  # of the actions of each unguided window
per_window = np.concatenate([np.nanmedian(one.per_transition, axis=1) for one in found[0]])
calm = size < np.median(size)
print(
    f"without guidance: half of the windows with the smaller actions {np.median(per_window[calm]):.1e}, other half {np.median(per_window[~calm]):.1e}"
)
assert np.median(per_window[calm]) < np.median(per_window[~calm])

# %% [markdown]
# Guided actions are the likelier under the agent the larger $c$ is. What that costs is in the middle, and a
# moderate $c$ makes the error **smaller**. This is no better model but a smaller world: agents after a thousand
# updates act mildly, so guidance leaves out windows of large actions (on the right), and those are the ones that
# the model gets wrong with or without it (the last line above). Only where $c$ is in the hundreds does the error
# grow, and at 4096 it is above that without guidance: the agent's mean action is then forced upon every step,
# and the states do not follow it as exactly. The same noise with and without
# guidance, in one action channel:

# %%
x = {"unguided": made[0.0], "guided": made[16.0]}
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.3), layout="constrained", sharex=True)
for axis, window in zip(axes, (1, 2, 3)):
    for name, m in x.items():
        axis.plot(m.action[0, window, :, 0], color=COLOURS[name], label=name)
        one = jax.tree.map(lambda leaf: leaf[0], agents)
        wanted = agent.target(one, m.observation[0, window]).mean[:, 0]
        axis.plot(wanted, color=COLOURS[name], linestyle=":", linewidth=1)
    axis.set(xlabel="step of the window", ylim=(-1.05, 1.05))
axes[0].set_ylabel("action 0")
axes[0].legend(frameon=False, fontsize=7)
figure.suptitle(
    "Generated actions (solid) and what agent 0 would do in the generated states (dotted), c = 16"
)
plt.show()

# %% [markdown]
# ## 7. Synthetic experience trains the agent
#
# Windows become transitions, and a pool holds them beside the real ones. The experiment trains in rounds, and
# so do we: before each, `pool_for` makes new windows, guided to the agents as they are then. (Before the first
# they have learned nothing, and nothing is guided.) Three quarters of a batch are synthetic. Beside them stand
# agents that see the dataset alone.

# %%
ROUNDS, EPISODES = 2, 4


def pool_for(begin, states):
    made = synthesis.synthetic_experience(
        jax.random.fold_in(jax.random.key(6), begin),
        diffuser,
        agent,
        states if begin else None,
        count=COUNT // 2,
        length=LENGTH,
        agents=SEEDS,
        sampler=sampler,
    )
    pool = jdp.data.pool(real, made, capacity=COUNT // 2 * (LENGTH - 1))
    sizes = ", ".join(map(str, pool.sizes))
    print(f"update {begin}: {len(real):,} real transitions, synthetic ones of each agent: {sizes}")
    return pool


def evaluate(step, states):
    make = jdp.evaluation.environment_maker(data.spec)
    return loops.play_together(
        agent.policy, states, make, key=jax.random.key(7), seeds=SEEDS, episodes=EPISODES, seed=7
    )


end = ROUNDS * UPDATES
journal = loops.Memory()
common |= {"updates": end, "evaluate": evaluate, "evaluate_every": end, "journal": journal}
loops.train_in_rounds(agent, real, phase="dataset", **common)
loops.train_in_rounds(agent, real, pool_for, phase="guided", real_share=0.25, **common)

results = {}
for arm in ("dataset", "guided"):
    results[arm] = jdp.evaluation.last_scores(journal.records(f"{arm}/evaluation"), data.spec, end)
    shown = ", ".join(f"{score:.1f}" for score in results[arm]["seeds"])
    print(f"{arm:<8} score of each seed: {shown} ({EPISODES} episodes)")
figure, axis = plt.subplots(figsize=(3.4, 2.2), layout="constrained")
for place, arm in enumerate(results):
    axis.plot([place] * SEEDS, results[arm]["seeds"], "o", color=COLOURS[arm], markersize=5)
axis.axhline(scores.mean(), color="#909090", linestyle="--", linewidth=0.8, label="behaviour policy")
axis.set(xlim=(-0.6, 1.6), ylim=(0, None), ylabel="normalised score", title=f"{SEEDS} seeds, {end:,} updates")
axis.set_xticks(range(2), list(results))
axis.legend(frameon=False, fontsize=7)
plt.show()

# %% [markdown]
# Two seeds, four episodes and two thousand updates are no comparison: which arm is ahead here is chance, and
# both are far from trained. What comes out after longer training, with intervals, is among the
# [results](../docs/results.md).
#
# To go on:
#
# | | |
# |---|---|
# | the whole experiment, four arms | `python experiments/pgd_d4rl.py --env hopper-medium` |
# | without training a diffuser | `--diffuser hopper-medium-diffuser` |
# | its models in a notebook | `run = jdp.load_run("results/pgd_d4rl/hopper-medium/<run>")` |
# | the synthetic data for another library | `--save-synthetic` |
# | what guidance is, in the plane | [Learned scores](01_learned_scores.ipynb) |
