"""The page of runs in a real browser: it sorts, filters, opens, compares, fits a phone, and logs no error."""

import contextlib
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from made_runs import HOSTILE, make_results

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import report

RUN, IQL = "20261101-100000-aaaaaaaa", "20261102-100000-bbbbbbbb"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; without it the tests fail under CI and are skipped elsewhere."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(programs) or importlib.util.find_spec("selenium") is None:
        message = "needs apt-get install chromium chromium-driver, and selenium (the extra test)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    config = report.Config(
        out=make_results(folder / "results"), to=folder / "page.html", file_megabytes=0.002
    )
    report.write(config)
    return (folder / "page.html").as_uri()


class Page:
    """What a reader does and sees."""

    def __init__(self, driver, url: str):
        self.driver, self.url = driver, url
        self.size(1280, 900)
        self.go("")

    def go(self, hash: str) -> None:
        self.driver.get("about:blank")  # else only the part after the # changes
        self.driver.get(self.url + hash)
        self.wait(lambda: self.js("document.querySelector('.dt-container') !== null"))

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, code: str, *arguments):
        return self.driver.execute_script(f"return {code}", *arguments)

    def all(self, selector: str) -> list:
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def type(self, words: str) -> None:
        box = self.driver.find_element("css selector", "input.dt-input")
        box.clear()
        box.send_keys(words)

    def wait(self, condition) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "timed out"
            time.sleep(0.02)

    def column(self, name: str) -> list[str]:
        cells = f"[...document.querySelectorAll('#runs tbody tr > .{name}')]"
        return self.js(f"{cells}.map(cell => (cell.querySelector('a,b') ?? cell).textContent.trim())")

    def shows(self, name: str, wanted: list[str]) -> None:
        """Sorting and searching end a little after the click."""
        with contextlib.suppress(AssertionError):
            self.wait(lambda: self.column(name) == wanted)
        assert self.column(name) == wanted

    def text(self, selector: str) -> str:
        return self.driver.find_element("css selector", selector).text

    def open(self, run: str) -> None:
        """Follows the link of the row whose run directory this is."""
        self.type(run)
        self.wait(lambda: len(self.column("method")) < 3)
        self.click("#runs td.method a")


@pytest.fixture
def page(browser, url):
    page = Page(browser, url)
    browser.get_log("browser")
    yield page
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors


def test_headings_sort_numbers_as_numbers(page):
    page.type("offline_rl")
    page.shows("score", ["", "98.0 [80.1, 115.9]", "10.0 [-2.7, 22.7]"])  # newest first
    page.click("#runs th.score")
    page.shows("score", ["98.0 [80.1, 115.9]", "10.0 [-2.7, 22.7]", ""])
    assert page.js("document.querySelector('th.score').ariaSort") == "descending"
    page.click("#runs th.method .dt-column-order")
    page.shows("method", ["iql", "td3_bc", "td3_bc"])
    page.driver.switch_to.active_element.send_keys("\n")  # by keyboard: the heading kept the focus
    page.shows("method", ["td3_bc", "td3_bc", "iql"])
    page.click("#runs th.updates")
    page.shows("updates", ["400", "200", "200"])


def test_search_and_lists_narrow_the_table_and_smoke_runs_are_hidden_at_first(page):
    page.wait(lambda: "bc" not in page.column("method"))
    total = len(page.column("method"))
    assert total == 11
    page.click("#smoke")
    page.wait(lambda: len(page.column("method")) == total + 1 and "bc" in page.column("method"))
    page.click("#runs th.experiment .dtcc-button_dropdown")
    options = {e.text: e for e in page.all(".dtcc-dropdown .dtcc-list-buttons button")}
    assert set(options) == {"broken", "offline_rl", "pgd_d4rl", "plan"}
    options["pgd_d4rl"].click()
    page.shows("method", ["td3_bc (guided arm)", "td3_bc (dataset arm)"])
    page.type("GUIDED")
    page.shows("method", ["td3_bc (guided arm)"])
    page.type("nothing like it")
    page.wait(lambda: "No matching" in page.text("#runs tbody"))
    page.go("")
    page.type("experiments/offline_rl.py")
    page.wait(lambda: len(page.column("method")) == 1)  # commands and directories are searched too
    page.go("")
    page.click("#runs th.method .dtcc-button_dropdown")
    options = {e.text: e for e in page.all(".dtcc-dropdown .dtcc-list-buttons button")}
    options["iql"].click()
    page.shows("method", ["iql"])  # the list chooses, its link does not lead away


def test_a_run_opens_with_its_curves_figures_command_and_settings(page):
    page.open(RUN)
    (article,) = page.all("article")
    assert article.find_element("css selector", "h2").text == "td3_bc on hopper-medium (bundled)"
    assert not page.all("#overview")
    titles = [e.text for e in article.find_elements("css selector", "figcaption")]
    assert titles == ["score", "critic_loss, agent", "plans.png"]
    page.wait(
        lambda: page.js("[...document.querySelectorAll('article:target img')].every(i => i.naturalWidth > 0)")
    )
    assert "large.png is not shown: larger than 0.002 MB" in article.text
    assert "score <b>" in article.text and "python experiments/offline_rl.py --agent td3_bc" in article.text
    article.find_elements("css selector", "summary")[0].click()
    assert "settings.alpha 2.5" in article.text
    page.driver.back()
    assert page.column("method") == ["td3_bc"] and not page.all("article")


def test_two_results_compare_by_their_scores_settings_and_curves(page):
    page.type("offline_rl")
    for name in ("20261105-100000-eeeeeeee", IQL, RUN):  # the third takes the place of the first
        page.type(name)
        page.wait(lambda: len(page.column("method")) == 1)
        page.click("#runs tbody input")
    assert page.text("#tray span").split() == ["A:", "iql", "B:", "td3_bc"]
    page.click("#tray a")
    (view,) = page.all("article")
    assert "different numbers of updates: 400 and 200" in view.text and "different data" not in view.text
    first, second, only = [
        [row.text for row in table.find_elements("css selector", "tr")] if table.is_displayed() else []
        for table in view.find_elements("css selector", "table")
    ]
    assert first[0] == "A: iql B: td3_bc"
    assert "normalised score 98.0 [80.1, 115.9] 10.0 [-2.7, 22.7]" in first
    assert sorted(second[1:]) == ["agent iql td3_bc", "updates 400 200"]
    assert only == []
    view.find_element("css selector", "summary").click()
    assert "settings.expectile 0.7 \N{EN DASH}" in view.text
    assert f"table.py --out {page.js('COMMAND').split()[3]} --compare" in view.text and RUN in view.text
    pairs = [[e.text for e in pair.find_elements("css selector", "figcaption")] for pair in page.all(".pair")]
    assert pairs[:2] == [["score", "score"], ["critic_loss, agent", "critic_loss, agent"]]


def test_arms_of_one_run_compare_and_two_must_be_ticked(page):
    page.go("#compare")
    assert "Tick two results" in page.text("#compare")
    page.go("")
    page.type("pgd_d4rl")
    page.wait(lambda: len(page.column("method")) == 2)
    boxes = page.all("#runs tbody input")
    boxes[0].click()
    assert "tick one more" in page.text("#tray") and not page.all("#tray a")
    boxes[1].click()
    page.click("#tray a")
    assert "arm guided dataset" in page.text("#compare")


def test_text_of_runs_is_text_and_errors_are_shown(page):
    assert HOSTILE in page.js("document.querySelector('#runs').textContent.replace(/\\s+/g, ' ')")
    page.click("#runs th.dataset .dtcc-button_dropdown")
    assert HOSTILE in [e.text for e in page.all(".dtcc-dropdown .dtcc-list-buttons button")]
    page.go("")
    page.open("20261104-100000-dddddddd")
    assert HOSTILE in page.text("article:target pre.command") and HOSTILE in page.text("article:target h2")
    assert not page.js("document.querySelector('script[src], img[src=x]')")
    page.go("")
    page.type("broken/set")
    page.shows("status", ["broken"] * 5)
    page.open("broken/set/half")
    assert "config.json: JSONDecodeError" in page.text("article:target .notice.error")


def test_on_a_phone_nothing_scrolls_sideways_but_the_tables(page):
    page.size(390, 844)
    for run in (None, RUN, "20261104-100000-dddddddd", "pgd_d4rl"):
        page.go("")
        if run:
            page.open(run)
        assert page.js("document.documentElement.scrollWidth") <= 390, run
    page.go("")
    for box in page.all("#runs tbody input")[:2]:
        page.js("arguments[0].click()", box)
    assert page.js("document.querySelector('#tray').getBoundingClientRect().bottom") <= 845
    page.click("#tray a")
    assert page.js("document.documentElement.scrollWidth") <= 390
    for scheme in ("dark", "light"):
        page.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        page.go("")
        dark = page.js("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 23, 27)"
        assert dark == (scheme == "dark")
