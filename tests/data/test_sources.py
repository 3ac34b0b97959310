"""Which file a name stands for: D4RL's cache, a download, the bundled set."""

import hashlib
import http.server
import threading
import time

import numpy as np
import pytest
from data_files import columns, write

import jdp.data
from jdp.data import d4rl, names, sources
from jdp.data.download import download
from jdp.errors import UserError


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `body` whole, cut, stalled, or not at all, by the path."""

    body = b""
    release = threading.Event()

    def do_GET(self):
        if self.path.startswith("/absent"):
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        if self.path.startswith("/whole"):
            self.wfile.write(self.body)
            return
        self.wfile.write(self.body[: len(self.body) // 2])
        self.wfile.flush()
        if self.path.startswith("/stall"):
            self.release.wait(10)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def url(tmp_path):
    write(tmp_path / "origin.hdf5", columns(2000, terminal_rows=[999], timeout_rows=[1999]))
    Server.body = (tmp_path / "origin.hdf5").read_bytes()
    Server.release.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def point_d4rl_at(monkeypatch, address, name="hopper-medium-v2"):
    table = dict(names.reference_table())
    table[name] = table[name]._replace(url=f"{address}/hopper_medium-v2.hdf5")
    monkeypatch.setattr(names, "reference_table", lambda: table)


def test_a_download_is_whole_and_leaves_nothing_beside_it(url, tmp_path):
    target, seen = tmp_path / "folder" / "x.hdf5", []
    download(f"{url}/whole", target, check=d4rl.check_layout, progress=lambda *a: seen.append(a))
    assert target.read_bytes() == Server.body
    assert list(target.parent.iterdir()) == [target]
    assert seen[-1] == (len(Server.body), len(Server.body))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent", "HTTP 404"),
        ("cut", "the connection ended after"),
        ("stall", "the server sent nothing for 0.3 s"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_the_old_file(url, tmp_path, path, reason):
    target = tmp_path / "folder" / "x.hdf5"
    target.parent.mkdir()
    target.write_text("old")
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        download(f"{url}/{path}", target, read_timeout=0.3)
    assert time.monotonic() - start < 5
    line = str(error.value)
    assert reason in line and f"{url}/{path}" in line and str(target) in line and "\n" not in line
    assert list(target.parent.iterdir()) == [target] and target.read_text() == "old"


@pytest.mark.parametrize("body", [b"<html>moved</html>", b""])
def test_an_answer_that_is_no_dataset_is_refused(url, tmp_path, body):
    Server.body = body
    with pytest.raises(UserError, match="the file received does not open as HDF5"):
        download(f"{url}/whole", tmp_path / "folder" / "x.hdf5", check=d4rl.check_layout)
    assert not list((tmp_path / "folder").iterdir())


def test_no_server_and_no_folder_left(tmp_path):
    with pytest.raises(UserError, match="no connection"):
        download("http://127.0.0.1:9/x.hdf5", tmp_path / "folder" / "x.hdf5")
    assert not (tmp_path / "folder").exists()


def test_the_order_is_disk_then_download_then_bundled(url, cache, monkeypatch):
    point_d4rl_at(monkeypatch, f"{url}/absent")
    bundled = jdp.data.load("hopper-medium")
    assert bundled.origin.name == "hopper-medium (bundled, d4rl-style)"
    assert "HTTP 404" in bundled.origin.notice and "not D4RL data" in bundled.origin.notice
    assert not cache.exists()

    point_d4rl_at(monkeypatch, f"{url}/whole")
    fetched = jdp.data.load("hopper-medium")
    assert fetched.origin.name == "hopper-medium-v2 (D4RL)" and fetched.origin.notice == ""
    assert fetched.origin.sha256 == hashlib.sha256(Server.body).hexdigest()
    assert fetched.spec.env_id == "Hopper-v4" and fetched.spec.max_episode_steps == 1000

    point_d4rl_at(monkeypatch, f"{url}/absent")
    on_disk = jdp.data.load("hopper-medium")
    assert on_disk.origin == fetched.origin
    np.testing.assert_array_equal(on_disk.rewards, fetched.rewards)


def test_a_forced_source_does_not_fall_back(url, cache, monkeypatch):
    point_d4rl_at(monkeypatch, f"{url}/absent")
    for name, source in (("hopper-medium", "d4rl"), ("hopper-medium-v2", "auto")):
        with pytest.raises(UserError, match="HTTP 404"):
            jdp.data.load(name, source=source)
    with pytest.raises(UserError, match="no bundled dataset 'walker2d-expert'"):
        jdp.data.load("walker2d-expert", source="bundled")
    with pytest.raises(UserError, match="no file"):
        jdp.data.load("hopper-medium", source="file")
    with pytest.raises(UserError, match="unknown source"):
        jdp.data.load("hopper-medium", source="web")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("hoper-medium", "hopper-medium"),
        ("halfcheeta-expert-v2", "halfcheetah-expert-v2"),
        ("???", "try"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, near):
    with pytest.raises(UserError, match="unknown dataset") as error:
        jdp.data.load(name)
    assert near in str(error.value) and "\n" not in str(error.value)


def test_names_and_tasks():
    assert names.full_d4rl_name("hopper-medium") == "hopper-medium-v2"
    assert names.full_d4rl_name("hopper-medium-v0") == "hopper-medium-v0"
    assert names.full_d4rl_name("pen-human") == "pen-human-v1"
    assert names.full_d4rl_name("hopper-medium-v9") is None
    assert names.d4rl_env_id("ant-medium-v2") == "Ant-v4"
    assert names.d4rl_env_id("antmaze-umaze-v2") is None
    assert names.d4rl_env_id("bullet-hopper-medium-v0") is None


def test_what_stands_for_what(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolve = sources._resolve
    assert resolve("mujoco/hopper/medium-v0", "auto") == "minari"
    assert resolve("walker2d-expert", "auto") == "d4rl"
    assert resolve("some/where.hdf5", "auto") == "file"
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "data-v0").write_text("")
    assert resolve("some/data-v0", "auto") == "file"


BUNDLED = {
    "hopper-medium": ("Hopper-v5", 100_000),
    "walker2d-medium": ("Walker2d-v5", 50_000),
    "pointmaze-umaze": ("PointMaze_UMaze-v3", 50_000),
    "pointmaze-large": ("PointMaze_Large-v3", 100_000),
}


@pytest.mark.parametrize("name", names.BUNDLED)
def test_a_bundled_set_is_the_one_on_its_card(name):
    data = jdp.data.load(name, source="bundled")
    card = (names.BUNDLED_DIR / f"{name}.md").read_text()
    assert data.origin.sha256 in card and f"{data.origin.size:,} bytes" in card
    assert f"{data.returns.mean():.1f}" in card and f"{len(data.lengths)} episodes" in card
    assert (data.spec.env_id, len(data)) == BUNDLED[name]
    reference = names.reference_table().get(f"{name}-v2")
    assert data.spec.score_range == (None if reference is None else reference.score_range)
    np.testing.assert_array_equal(data.next_valid, ~data.timeouts if reference is None else True)
    inside = ~(data.terminals | data.timeouts)[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][inside], data.observations[1:][inside])
