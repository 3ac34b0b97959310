"""Grids of sweep.py: expanded, checked by their scripts, given mistakes."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, run
from sweeps import write

from jdp.errors import UserError

sys.path.insert(0, str(EXPERIMENTS))
import grid as grids


def test_a_grid_is_the_cross_of_its_options_and_parts_say_more_than_the_top(tmp_path):
    path = write(
        tmp_path,
        """
        fixed = { preset = "cpu", seeds = 2 }
        cross.env = ["a/b", "c"]
        [[part]]
        script = "offline_rl.py"
        fixed = { evaluation.every = 5, save_synthetic = false, settings.no-x = true, log = ["wandb", "b"] }
        cross = { settings.penalty = [0.5, 1], seed = [0, 2] }
        [[part]]
        script = "fake.py"
        fixed.preset = "paper"
        cross.env = ["c"]
        [[part]]
        script = "fake.py"
        fixed.preset = "smoke"
        cross.env = ["c", "c"]
        """,
    )
    found = grids.read(str(path), Path("results"))[1]
    options = [f"{env}-{penalty}-{seed}" for env in ("a-b", "c") for penalty in (0.5, 1) for seed in (0, 2)]
    assert list(found) == [*options, "c", "c-9"]  # what stands there twice is one cell
    words = found["a-b-0.5-2"]
    assert " ".join(words[2:]) == (
        "--preset cpu --seeds 2 --evaluation.every 5 --no-save-synthetic --settings.no-x --log wandb b "
        "--env a/b --settings.penalty 0.5 --seed 2 --out results --resume auto"
    )
    assert words[0] == "python" and Path(words[1]).resolve() == EXPERIMENTS / "offline_rl.py"
    assert " ".join(found["c"][2:]) == "--preset paper --seeds 2 --env c --out results --resume auto"


def test_seeds_of_different_cells_are_different_keys_and_episodes():
    # As the scripts make them: named keys of --seed; of each, one a seed for weights and updates.
    steps = np.asarray([2**31 - 1, *range(100)], np.uint32)
    keys, resets = [], []
    for seed in (0, 4, 8):
        named = jax.random.split(jax.random.key(seed), 4)
        for key in named:
            folded = jax.vmap(lambda i, k=key: jax.random.fold_in(k, i))(steps)
            keys += [jax.vmap(lambda k: jax.random.split(k, 4))(folded)]
        resets += np.random.SeedSequence(seed + 1_000_000).generate_state(400).tolist()
    bits = np.concatenate([np.asarray(jax.random.key_data(k)).reshape(-1, 2) for k in keys])
    assert len(np.unique(bits, axis=0)) == len(bits)
    assert len(set(resets)) == len(resets)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scrpt = 'fake.py'", "scrpt = 'fake.py' is not understood"),
        ("script = 'offline.py'", "no script 'offline.py'"),
        ("fixed = 3", "fixed = 3 is not understood"),
        ("script = 'fake.py'\n[cross]\nmode = 'ok'", "cross.mode is 'ok': it must be a list"),
        ("[cross]\nmode = ['a']", "no script ''"),
        ("part = [3]", "part must be a list of tables"),
        ("part = []", "part must be a list of tables"),
        ("[[part]]\nscript = 'fake.py'\npart = []", "part = [] is not understood"),
        ("script = ", "Invalid value"),
    ],
)
def test_a_mistake_in_a_grid_is_one_line(tmp_path, text, line):
    with pytest.raises(UserError) as found:
        grids.read(str(write(tmp_path, text)), tmp_path)
    assert line in str(found.value) and "grid.toml" in str(found.value)
    assert len(str(found.value).splitlines()) == 1


def test_every_cell_of_the_shipped_grids_is_a_command_that_its_script_takes():
    names, counts, asked = [path.stem for path in (EXPERIMENTS / "grids").glob("*.toml")], {}, {}
    for name in names:
        commands, preset = (
            grids.read(name, Path("results"))[1],
            "paper" if name.startswith("paper") else "cpu",
        )
        assert all(f"--preset {preset}" in " ".join(command) for command in commands.values()), name
        counts[name] = len(commands)
        # What follows the name of a robot or maze is no question of a command line.
        asked |= {re.sub(r"(--env \w+)\S*", r"\1", " ".join(c)): c for c in commands.values()}
    assert counts == {
        "example": 4,
        "readme-agents": 11,
        "readme-planning": 36,
        "readme-pgd": 2,
        "readme-world-models": 2,
        "paper-pgd": 18,
        "paper-agents": 99,
        "paper-planning": 126,
        "maze2d-planners": 12,
        "ogbench-planners": 24,
        "giant": 3,
        "paper-maze2d-agents": 12,
        "pgd-hopper": 8,
        "realtime": 22,
        "seeing": 19,
        "finetune-umaze": 6,
        "finetune-hopper": 6,
        "finetune-walker2d": 4,
    }
    code = f"import sys; sys.path.insert(0, {str(EXPERIMENTS)!r}); import grid; grid.check({asked})"
    done = run("sweep", code=code)  # of its own, where JAX has one device
    assert done.returncode == 0, done.stderr
