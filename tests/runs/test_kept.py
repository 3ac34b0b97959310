"""What a table keeps of its runs names no folder of a machine."""

import json

from jdp.runs.kept import keep_runs, kept_runs


def test_commands_are_kept_without_the_places_that_they_name(tmp_path):
    run = tmp_path / "plan" / "maze" / "made"
    run.mkdir(parents=True)
    began = {"command": "python /somewhere/experiments/plan.py --seeds 2 --out /somewhere/results"}
    again = {"command": f"python experiments/plan.py --seeds 2 --resume auto --resume {run}", "time": "now"}
    (run / "config.json").write_text(json.dumps(began | {"resumed": [again]}))
    (run / "scores.json").write_text("{}")
    keep_runs(tmp_path, "table", [run])
    (kept,) = kept_runs(tmp_path, "table")
    found = json.loads((kept / "config.json").read_text())
    assert found["command"] == "python experiments/plan.py --seeds 2"
    assert found["resumed"] == [{"command": "python experiments/plan.py --seeds 2", "time": "now"}]
