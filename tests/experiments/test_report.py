"""What report.py writes: every run once, text of runs stays text, and nothing comes from elsewhere."""

import base64
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import HOSTILE, finished, make_results, write
from scripts import check_mistakes

from jdp.errors import UserError
from jdp.runs.frame import read_runs

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import report


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"))


class Reader(HTMLParser):
    """The elements of a page by their tag, and the texts of the table's first links."""

    def __init__(self, text: str):
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))


def make(out: Path, **options) -> str:
    report.write(report.Config(out=out, **options))
    return (options.get("to") or out / "report.html").read_text()


def sections(out: Path, **options) -> dict[str, report.Section]:
    found = report.sections(read_runs(out), report.Config(out=out, **options))
    return {str(section.rows[0]["id"]).partition("~")[0]: section for section in found}


def test_every_run_stands_on_the_page_once(results, tmp_path):
    out = tmp_path / "more"
    shutil.copytree(results, out)
    for name in (".-mine.hdf5", "数据", ".-..-mine"):
        run = out / "offline_rl" / name / "20261110-100000-abcdabcd"
        write(run, {"agent": "bc", "preset": "cpu"}, [], finished([1.0, 2.0]), dataset=name)
    page = Reader(make(out))
    runs = read_runs(out)
    assert len(runs) == 15
    ids = [a["id"] for a in page.found["article"] if a["id"] != "compare"]
    assert len(ids) == len(set(ids)) == runs.id.map(lambda name: name.partition("~")[0]).nunique() == 14
    boxes = [box["value"] for box in page.found["input"] if "value" in box]
    assert len(boxes) == len(set(boxes)) == len(runs)
    links = {a["href"] for a in page.found["a"]} - {"#", "#compare"}
    assert links == {f"#{name}" for name in ids}


def test_what_is_too_large_is_named_and_left_out(results):
    for limits, why in (
        ({"file_megabytes": 0.002}, "larger than 0.002 MB"),
        ({"total_megabytes": 0.003}, "the page holds its megabytes of figures already"),
    ):
        large, small = sections(results, **limits)["offline_rl/hopper-medium/20261101-100000-aaaaaaaa"].files
        assert (large.name, large.uri, large.why) == ("large.png", None, why)
        assert small.uri is not None and small.uri.startswith("data:image/png;base64,iVBORw0KGgo")


def test_a_run_is_told_with_its_curves_settings_and_report(results):
    section = sections(results)["offline_rl/hopper-medium/20261101-100000-aaaaaaaa"]
    assert [picture.metric for picture in section.curves] == ["score", "critic_loss, agent"]
    assert section.curves[0].said == "score by step: agent ends at 40.62"
    drawing = base64.b64decode(section.curves[0].uri.partition(",")[2]).decode()
    assert drawing.startswith("<?xml") and "behaviour policy" in drawing
    assert section.settings["settings.hidden"] == "[256, 256]" and section.report.startswith("score <b>")
    assert section.facts["normalised score"] == "10.0 [-2.7, 22.7]"


def test_no_text_of_a_run_becomes_markup_and_nothing_is_fetched(results):
    page = make(results)
    found = Reader(page).found
    assert HOSTILE not in page and "alert(" in page
    code = [s for s in found["script"] if s.get("type") is None]
    data = [s for s in found["script"] if s.get("type") in ("application/json", "text/plain")]
    assert len(code) == 1 and len(code) + len(data) == len(found["script"]) == page.count("</script>")
    assert not [a for elements in found.values() for a in elements if any(k.startswith("on") for k in a)]
    for elements in found.values():
        for attributes in elements:
            for name in {"src", "href"} & set(attributes):
                assert re.match("#|data:", attributes[name] or ""), attributes
    (policy,) = [m["content"] for m in found["meta"] if m.get("http-equiv")]
    assert policy and "default-src 'none'" in policy and policy.count("'sha256-") == 1
    assert "unsafe-inline' 'sha" not in policy and "http" not in policy


def test_a_sweep_has_a_page_of_its_own(results, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(results, out)
    (out / "sweeps" / "small").mkdir(parents=True)
    cells = '{"cells": [{"name": "three", "status": "failed", "run": null, "error": "no <disk>"}]}'
    (out / "sweeps" / "small" / "cells.json").write_text(cells)
    page = make(out, sweep="small", to=out / "sweeps/small/report.html")
    assert page.count("<article") == 2 and "no &lt;disk&gt;" in page
    with pytest.raises(UserError, match="holds no runs"):
        make(out / "tables")


def test_a_mistake_gets_one_line(tmp_path, results):
    check_mistakes(
        "report",
        {
            "no runs": (["--out", str(tmp_path)], "holds no runs"),
            "no sweep": (["--out", str(results), "--sweep", "large"], "no sweep large"),
            "unwritable": (["--out", str(results), "--to", "/proc/page.html"], "choose another --to"),
        },
        [],
    )
