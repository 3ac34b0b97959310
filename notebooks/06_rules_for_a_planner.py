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
# # Rules for a planner
#
# A planner has learned what the data do. This page gives one that comes with `jdp` a rule that the data do not
# keep, in signal temporal logic ([arXiv 2503.02924](https://arxiv.org/abs/2503.02924)), and trains nothing:
#
# 1. the **rule**, and by how much plans keep it (their robustness);
# 2. **plans** that are steered by it while they are drawn;
# 3. both in **closed loop**, judged by what was done.
#
# It needs `pip install -e ".[robotics]"` for the maze's simulator (part of `".[notebooks]"`), and takes a minute
# on two CPU cores. The same from the command line, with the rule in a file:
# `python experiments/evaluate.py maze2d-umaze-diffuser --many-goals --guide rules.py:rule --guide-strength 100`.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import numpy as np

import jdp
from jdp import loops, planners, plotting
from jdp.diffusion.guidance.logic import always, disc, outside, robustness, slack
from jdp.learning import rules
from jdp.tasks import maze_of, simulators

plt.rcParams.update({"figure.dpi": 100, "font.size": 8})
run = jdp.load_pretrained("maze2d-umaze-diffuser")
spec, state, maze = run.spec, run.state(), maze_of(run.spec)
print(f"{run.name}, trained on {run.written['dataset']}")

# %% [markdown]
# ## 1. A rule
#
# In the bend of the U there is a disc that plans shall not enter. The rule is an object: it judges any path, exactly
# or smoothly, and the two differ by no more than `slack` says.

# %%
place = ((1.5, 0.0), 0.5)
rule = always(outside(disc(*place)))
path = np.stack([np.linspace(-1, 1.4, 9), np.zeros(9)], axis=1)[None]
print(f"of a straight way to (1.4, 0): {float(robustness(rule, path)[0]):.2f}")
print(f"smooth {float(robustness(rule, path, tau=100)[0]):.2f}, at most {slack(rule, 9):.2f} from it")

# %% [markdown]
# ## 2. Plans
#
# `logic_guide` tilts the plans to `p(plan) exp(-strength * relu(margin - robustness))`. Rows of these plans are four
# steps apart, which `stride` says. A few plans cross a wall now: the rule asks for what the data hardly hold.

# %%
guide = planners.logic_guide(rule, 100.0, margin=0.2, stride=run.settings.stride)
methods = {"as it was": run.method, "with the rule": planners.make(run.settings, spec, guide=guide)}
_, starts, _ = jax.vmap(simulators.simulator(spec.env_id).reset)(jax.random.split(jax.random.key(0), 64))
starts = starts[:, : spec.observation_dim]
goals, panels, kept = starts[::-1, :2], {}, {}
for name, method in methods.items():
    _, decision = jax.jit(method.policy.act)(
        jax.random.key(1), state, method.policy.init(starts), starts, goals
    )
    plan = decision.plan.observation
    panels[name] = np.asarray(plan[..., :2])
    kept[name] = np.asarray(robustness(rule, plan, stride=run.settings.stride))
    print(
        f"{name:<14} {np.mean(kept[name] > 0):.0%} of the plans keep out, robustness {kept[name].mean():.2f}"
    )
assert (kept["with the rule"] > 0).mean() > (kept["as it was"] > 0).mean() + 0.1


# %%
def shown(paths, goals, title):
    """A figure of `jdp.plotting`, which draws for print, at the size of this page."""
    figure = plotting.aligned_plans(maze, paths, np.asarray(goals), title=title, disc=place)
    figure.set_dpi(110)
    return figure


shown(panels, goals, "The same starts, goals and noise")

# %% [markdown]
# ## 3. In closed loop
#
# Both play the same episodes, each to a goal of its own. What was done is judged, not what was planned.

# %%
make = jdp.evaluation.environment_maker(spec, many_goals=True)
paths = {}
for name, method in methods.items():
    played = loops.play(
        method.policy, jax.random.key(5), state, make, episodes=16, seed=20, observations=True
    )
    done = rules.kept(rule, played.observation, played.action)
    points = jdp.evaluation.normalised_score(played.returns, spec.score_range)
    print(
        f"{name:<14} {np.mean(done > 0):.0%} kept out, robustness {done.mean():.2f}, score {points.mean():.1f}"
    )
    paths[name] = [played.observation[: n + 1, i, :2] for i, n in enumerate(played.lengths)]
shown(paths, played.goal, "What was done")

# %% [markdown]
# A rule at test time is no guarantee: the model of the data has the last word, and the disc leaves half of a corridor.
# Other rules are as short: `until(outside(b), inside(a))` visits a before b, `always(implies(inside(a),
# below(speed(), 1.0)))` is slow there. `docs/steering.md` has all of them, and what was measured.
