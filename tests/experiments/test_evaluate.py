"""evaluate.py: a file of weights plays as the run that it was made of, and mistakes get one line."""

import json

import gymnasium
import numpy as np
import pytest
from scripts import check_mistakes, mistakes
from test_export_script import make_run


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluate"), "agent")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluate"), "policy")


def test_a_file_of_weights_scores_what_its_run_does(agent, tmp_path):
    weights, out = tmp_path / "agent.jdp", tmp_path / "out"
    assert mistakes("export", {"": [str(agent), "--weights", "--to", str(weights)]})[""][0] == 0
    common = ["--episodes", "2", "--decisions", "1", "--out", str(out)]
    said = mistakes("evaluate", {"run": [str(agent), *common], "weights": [str(weights), *common]})
    assert said["run"][0] == said["weights"][0] == 0, said
    found = [json.loads(path.read_text()) for path in sorted(out.glob("evaluate/*/*/scores.json"))]
    run, file = sorted(found, key=lambda scores: -len(scores["seeds"]))
    assert (len(run["seeds"]), len(file["seeds"])) == (2, 1)
    np.testing.assert_array_equal(file["returns"][0], run["returns"][0])
    assert run["returns"][0] != run["returns"][1] and file["method"] == "bc"
    reports = [path.read_text() for path in out.glob("evaluate/*/*/report.txt")]
    assert all("made up, Hopper-v5: bc, 2 episodes a seed" in text for text in reports)


def test_in_a_task_that_does_not_wait_a_decision_acts_late(agent, tmp_path):
    options = ["--episodes", "2", "--decisions", "1", "--hz", "0.001", "1e9", "--out", str(tmp_path)]
    assert mistakes("evaluate", {"": [str(agent), *options]})[""][0] == 0
    (path,) = tmp_path.glob("evaluate/*/*")
    found = json.loads((path / "scores.json").read_text())
    soon, never = found["at_rates"]
    assert (soon["hz"], soon["ticks"], soon["seeds"]) == (0.001, 0, found["seeds"])
    # A decision comes after the end of the episode: until then nothing is done.
    assert never["ticks"] > 1_000 and "at 1e+09 Hz it acts" in (path / "report.txt").read_text()
    task, returns = gymnasium.make("Hopper-v5"), []
    for start in np.random.SeedSequence(2_000_000).generate_state(2).tolist():
        task.reset(seed=start)
        ended, total = False, 0.0
        while not ended:
            _, reward, terminated, truncated, _ = task.step(np.zeros(3, np.float32))
            ended, total = terminated or truncated, total + float(reward)
        returns.append(total)
    assert never["seeds"][0] == pytest.approx(np.mean(returns))


def test_a_policy_of_chunks_is_played_warm(policy, tmp_path):
    """The report and the configuration say so; tables tell settings apart."""
    common = [str(policy), "--episodes", "1", "--decisions", "1", "--out", str(tmp_path)]
    said = mistakes("evaluate", {"warm": [*common, "--warm.levels", "2"]})
    assert said["warm"][0] == 0, said
    (run,) = tmp_path.glob("evaluate/*/*")
    assert "diffusion_policy, warm (levels 2, shift 1), 1 episodes" in (run / "report.txt").read_text()
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["warm"] == {"levels": 2, "shift": 1} and config["real_time"] is None


RULES = """
import jax.numpy as jnp
limit = 0.0

def barrier(context, action):
    assert context.observation.shape == (len(action), 11) and context.history.shape[1] == 1
    return limit * action, 0.25 * jnp.ones(len(action))
"""


def test_a_filter_of_a_users_file_has_the_last_word(agent, tmp_path):
    """One that allows nothing: the body falls as it does by itself."""
    rules = tmp_path / "my_rules.py"
    rules.write_text(RULES)
    options = ["--episodes", "2", "--decisions", "1", "--out", str(tmp_path)]
    said = mistakes("evaluate", {"": [str(agent), "--filter", f"{rules}:barrier", *options]})
    assert said[""][0] == 0, said
    (run,) = tmp_path.glob("evaluate/*/*")
    found, report = json.loads((run / "scores.json").read_text()), (run / "report.txt").read_text()
    assert found["filter"] == {
        "steps": sum(map(sum, found["lengths"])),
        "changed": 1,
        "broken": 1,
        "worst": 0.25,
    }
    assert (
        "my_rules.py:barrier, 2 episodes a seed" in report and "the filter changed 100.0 % of the" in report
    )
    task = gymnasium.make("Hopper-v5")
    task.reset(seed=np.random.SeedSequence(2_000_000).generate_state(2).tolist()[0])
    ended, total = False, 0.0
    while not ended:
        _, reward, terminated, truncated, _ = task.step(np.zeros(3, np.float32))
        ended, total = terminated or truncated, total + float(reward)
    assert found["returns"][0][0] == pytest.approx(total)
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["filter"].endswith("my_rules.py:barrier")


def test_policies_are_played_together_by_a_weight_that_is_searched_on_other_episodes(policy, tmp_path):
    """What each has alone is told of the episodes that are reported, on which no weight was chosen."""
    options = ["--compose.run", str(policy), "--compose.search", "2", "--compose.search-episodes", "1"]
    common = ["--episodes", "1", "--decisions", "1", "--out", str(tmp_path)]
    assert mistakes("evaluate", {"": [str(policy), *options, *common]})[""][0] == 0
    (run,) = tmp_path.glob("evaluate/*/*")
    found, text = json.loads((run / "scores.json").read_text()), (run / "report.txt").read_text()
    assert found["weights"] in found["grid"] == [[1, 0], [0, 1]]
    alone = found["parents"][found["weights"].index(1)]
    np.testing.assert_allclose(alone, np.mean(found["seeds"]), rtol=1e-4)
    assert "composed with diffusion_policy of" in text and "chosen of 2 by other episodes" in text
    assert json.loads((run / "config.json").read_text())["config"]["compose"]["search"] == 2


def test_mistakes_get_one_line(agent, policy, tmp_path):
    rules = tmp_path / "my_rules.py"
    rules.write_text(RULES)
    cases = {
        "an unknown model": (["hoper"], "no trained model hoper: give the path of a file, or one of"),
        "no weights": ([__file__], "no file of weights made by jdp"),
        "a task without goals": ([str(agent), "--many-goals"], "Hopper-v5 has no goals to draw"),
        "no episodes": ([str(agent), "--episodes", "0"], "--episodes is 0: it must be at least 1"),
        "no rate": ([str(agent), "--hz", "50", "0"], "--hz is 0.0: it must be above 0"),
        "no chunks": ([str(agent), "--warm.levels", "2"], "a warm start goes on from chunks that a sampler"),
        "too many levels": (
            [str(policy), "--warm.levels", "9"],
            r"warm start.levels is 9; it must lie between",
        ),
        "too long": ([str(policy), "--real-time.delay", "2"], "so a delay lies between 0 and 1, not 2"),
        "no delay": ([str(policy), "--real-time.overlap", "0"], "says nothing without --real-time.delay"),
        "no other": ([str(policy), "--compose.weight", "0.4"], "says nothing without --compose.run"),
        "an agent and a policy": (
            [str(policy), "--compose.run", str(agent)],
            "policies are composed with policies and planners with planners",
        ),
        "one weight": (
            [str(policy), "--compose.run", str(policy), "--compose.search", "1"],
            "two weights on",
        ),
        "both": ([str(policy), "--warm.levels", "2", "--real-time.delay", "1"], "leave one out"),
        "no name": (
            [str(agent), "--filter", str(rules)],
            "say where it is and how it is called",
        ),
        "no file": ([str(agent), "--filter", "there.py:barrier"], "there is no file there.py"),
        "another name": (
            [str(agent), "--filter", f"{rules}:barier"],
            "but limit, barrier",
        ),
        "no function": (
            [str(agent), "--filter", f"{rules}:limit"],
            "is no function of a context and an action",
        ),
        "an arm that is not there": ([str(agent), "--arm", "guided"], "choose one of agent, not guided"),
    }
    check_mistakes("evaluate", cases, ["--out", str(tmp_path)])
