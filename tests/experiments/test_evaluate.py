"""evaluate.py: a file of weights plays as the run that it was made of, and mistakes get one line."""

import json

import numpy as np
import pytest
from scripts import check_mistakes, mistakes
from test_export_script import make_run


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluate"), "agent")


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


def test_mistakes_get_one_line(agent, tmp_path):
    cases = {
        "an unknown model": (["hoper"], "no trained model hoper: give the path of a file, or one of"),
        "no weights": ([__file__], "no file of weights made by jdp"),
        "a task without goals": ([str(agent), "--many-goals"], "Hopper-v5 has no goals to draw"),
        "no episodes": ([str(agent), "--episodes", "0"], "--episodes is 0: it must be at least 1"),
        "an arm that is not there": ([str(agent), "--arm", "guided"], "choose one of agent, not guided"),
    }
    check_mistakes("evaluate", cases, ["--out", str(tmp_path)])
