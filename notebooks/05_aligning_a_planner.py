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
# # Aligning a planner with a wish
#
# A planner has learned what the data do. Somebody wants something else of it: keep away from a place that the
# data pass all the time. There are two ways to get it, and this page goes both, with a planner that comes with
# `jdp`:
#
# 1. the **wish**, a function of plans, and how plans do by it;
# 2. **guidance**: the gradient of the wish steers every plan while it is drawn. Nothing is trained;
# 3. **alignment**: the planner's own weights change, by policy gradients on its denoising chains
#    ([DDPO](https://arxiv.org/abs/2305.13301)). Afterwards it draws such plans by itself;
# 4. what it **cost**: how far the model has moved, and whether its plans still look like the data;
# 5. both in **closed loop**.
#
# It needs `pip install -e ".[robotics]"` for the maze's simulator (part of `".[notebooks]"`), and takes a minute
# or two on two CPU cores. Nothing is downloaded. `python experiments/align.py --model maze2d-umaze-diffuser
# --reward avoid` does the same with any of twenty methods, for many seeds.

# %%
# %matplotlib inline
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp import loops, planners, plotting
from jdp.alignment import rows, support
from jdp.alignment.bases import base_of, judged_by
from jdp.alignment.ddpo import DDPOConfig, ddpo
from jdp.alignment.models import Given
from jdp.alignment.playing import executed, reward_guide
from jdp.alignment.rewards import Avoid
from jdp.alignment.scores import score
from jdp.tasks import maze_of, simulators

plt.rcParams.update({"figure.dpi": 100, "font.size": 8})


def small(figure):
    """A figure of `jdp.plotting`, which draws for print, at the size of this page."""
    figure.set_dpi(110)
    return figure


# %% [markdown]
# ## 1. A wish
#
# The planner draws plans of 32 rows, out of noise in 20 calls of its network; here 10 must do. `base_of` gives
# what of it can be aligned: a diffusion model of plans, given a start and a goal, whose samples it can show in
# the units of the task.

# %%
run = jdp.load_pretrained("maze2d-umaze-diffuser")
spec, state, maze = run.spec, run.state(), maze_of(run.spec)
settings = dataclasses.replace(run.settings, sampling=dataclasses.replace(run.settings.sampling, steps=10))
base = base_of(settings, spec, state)
print(f"{run.name}, trained on {run.written['dataset']}; a sample is {base.model.event}")

# %% [markdown]
# In the bend of the U, plans keep to the outer wall. The wish is a disc there that they shall not enter. `Avoid`
# says minus how deep the deepest row lies in it, 0 outside. Any function of `(observations [B, T, O],
# actions [B, T, A], goal [B, G])` would do.

# %%
wish = Avoid(centre=(1.5, 0.0), radius=0.65)
ways = rows.conditions_of_task(jax.random.key(0), base, simulators.simulator(spec.env_id), 256)
draw = jax.jit(base.model.sample)


def plans(params, count=96):
    """Plans of these weights `[count, 32, 2]`, always from the same noise, and what the wish says of them."""
    x0 = draw(jax.random.key(1), params, ways[:count])
    observation, action, goal = base.units(x0, ways[:count])
    return np.asarray(observation[..., :2]), np.asarray(wish(observation, action, goal)), np.asarray(goal)


before, reward, goals = plans(base.params)
print(f"the wish of its plans: {reward.mean():.3f}; {np.mean(reward < -0.05):.0%} enter the disc")
disc = (wish.centre, wish.radius)
small(plotting.aligned_plans(maze, {"as it was": before}, goals, title="Plans and the disc", disc=disc))

# %% [markdown]
# ## 2. Guidance
#
# `reward_guide` tilts the plans to `p(plan) exp(strength * wish)` while they are drawn: at every level the
# gradient of the wish at the denoised plan moves them. Its strength has to be found, and every decision pays for
# the gradient. Section 5 plays a weak and a strong one.

# %%
guided = {g: planners.make(settings, spec, guide=reward_guide(wish, g)) for g in (5.0, 30.0)}

# %% [markdown]
# ## 3. Alignment
#
# DDPO takes the 10 denoising steps as 10 actions and their Gaussians as a policy. The wish of the plan is the
# reward; of 8 plans of the same start and goal, those above their mean become more likely. `kl_weight` holds it to
# the model as it was. A method is a `Learner`, trained by the same `loops.train` as everything in `jdp`.

# %%
config = DDPOConfig(group=8, learning_rate=2e-4, kl_weight=0.002)
given = Given(base.params, judged_by(base, wish), ways)
journal = loops.Memory()
aligned = loops.train(
    ddpo(config, base.model),
    given,
    key=jax.random.key(2),
    updates=30,
    batch_size=8,
    chunk=2,
    journal=journal,
)
records = journal.records("train")
after, reward_after, _ = plans(aligned.trained.params)
print(f"the wish: {reward.mean():.3f} -> {reward_after.mean():.3f}")
print(f"enter the disc: {np.mean(reward < -0.05):.0%} -> {np.mean(reward_after < -0.05):.0%}")
assert reward_after.mean() > 0.6 * reward.mean(), "nearer to 0"

# %%
figure, axis = plt.subplots(figsize=(4.4, 2.2), layout="constrained")
axis.plot([r["step"] for r in records], [r["reward"] for r in records], color="#4878a8")
axis.set(xlabel="update (64 plans each)", ylabel="the wish")
axis.spines[["top", "right"]].set_visible(False)
plt.show()
panels = {"as it was": before, "aligned": after}
small(plotting.aligned_plans(maze, panels, goals, title="The same starts, goals and noise", disc=disc))

# %% [markdown]
# ## 4. What it cost
#
# Two numbers say how far the model has gone. The divergence of its denoising chains from those of the model as
# it was, in nats: a plan has 128 entries, so some nats are spent on what no wish asks for. And the share of plans
# that the model as it was no longer knows: a plan of its own, put under a little noise, is denoised to about
# itself, a plan off the data is not. `align.py` stops by itself where that share passes 2 %.

# %%
ask = jax.jit(score, static_argnames=("model", "count"))
found = ask(
    jax.random.key(3),
    aligned.trained.params,
    base.params,
    given.judge,
    ways[:32],
    model=base.model,
    count=4,
)
guard = support.guard(jax.random.key(4), given, dataclasses.replace(config, watched=256), base.model)
both = jax.tree.map(lambda *x: jnp.stack(x), base.params, aligned.trained.params)
off = guard.shares(both)
print(f"divergence {float(found.divergence):.1f} nats a plan")
print(f"plans off the data: {float(off[0]):.1%} as it was, {float(off[1]):.1%} aligned")
assert off[1] < 0.1

# %% [markdown]
# ## 5. In closed loop
#
# The aligned weights go back into the planner with `base.replaced`. All four play the same 24 episodes, each
# with a goal of its own. `executed` asks the wish of what was *done*, until the goal was reached.

# %%
make = jdp.evaluation.environment_maker(spec, many_goals=True)
plain = planners.make(settings, spec)
acting = {
    "as it was": (plain, state),
    **{f"guided, strength {g:g}": (method, state) for g, method in guided.items()},
    "aligned": (plain, base.replaced(aligned.trained.params)),
}
paths, done = {}, {}
for name, (method, weights) in acting.items():
    played = loops.play(
        method.policy, jax.random.key(5), weights, make, episodes=24, seed=20, observations=True
    )
    done[name] = executed(wish, played.observation, played.lengths, played.goal, spec)
    points = jdp.evaluation.normalised_score(played.returns, spec.score_range)
    took = loops.latency(method.policy, jax.random.key(6), weights, make, decisions=10)
    print(
        f"{name:<20} wish of what was done {done[name].mean():.3f}, score {points.mean():5.1f}, "
        f"a plan takes {1e3 * took.first:.0f} ms"
    )
    paths[name] = [played.observation[: n + 1, i, :2] for i, n in enumerate(played.lengths)]
small(plotting.aligned_plans(maze, paths, played.goal, title="What was done", disc=disc))

# %% [markdown]
# A weak guide changes little and a strong one takes plans apart: the ball follows what no longer is a way. The
# aligned planner learned which whole plans are good *and* likely. But guidance needs no training and can be
# changed at any time, so which serves a task better is a matter of measuring: `docs/alignment.md` has both side
# by side in a larger maze.
