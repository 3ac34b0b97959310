"""Two processes on this machine make the losses, gradients and checkpoints of one."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_xla import QUICK

from jdp.devices import data_mesh, replicate
from jdp.devices.distributed import from_main, is_main, is_many, settings, start
from jdp.errors import UserError
from jdp.loops import fit
from jdp.runs import checkpoints

KNOWN = {"JDP_COORDINATOR": "node0:1234", "JDP_PROCESSES": "4", "JDP_PROCESS": "2"}

# The work, for both sides: a small regression with noise that depends on the key.
WORK = """
import jax, jax.numpy as jnp

def start_weights():
    keys = jax.random.split(jax.random.key(0), 2)
    return {"a": jax.random.normal(keys[0], (3, 8)), "b": jax.random.normal(keys[1], (8,))}

def loss(weights, batch):
    return jnp.mean(jnp.square(jnp.tanh(batch["x"] @ weights["a"]) @ weights["b"] - batch["y"]))

def update(key, weights, batch):
    noisy = {**batch, "y": batch["y"] + 0.1 * jax.random.normal(key, batch["y"].shape)}
    value, slope = jax.value_and_grad(loss)(weights, noisy)
    return jax.tree.map(lambda w, g: w - 0.1 * g, weights, slope), {"loss": value}

def draw(key, data):
    rows = jax.random.randint(key, (8,), 0, data["y"].shape[0])
    return {name: column[rows] for name, column in data.items()}

def dataset():
    x = jax.random.normal(jax.random.key(1), (32, 3))
    return {"x": x, "y": jnp.sin(x).sum(axis=1)}
"""

CHILD = (
    WORK
    + """
import json, sys
from pathlib import Path
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jdp.errors import UserError
from jdp.devices import data_mesh, distributed, replicate
from jdp.loops import fit
from jdp.runs import checkpoints

folder, port, me = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
distributed.start(f"127.0.0.1:{port}", 2, me, timeout=60)
assert (jax.process_count(), jax.process_index(), len(jax.devices())) == (2, me, 2)
assert distributed.is_many() and distributed.is_main() == (me == 0)
mesh, found = data_mesh(), {}

# Each process has its own half of the batch, and nothing of the other.
part = {name: np.asarray(column[:8])[4 * me : 4 * me + 4] for name, column in dataset().items()}
rows = NamedSharding(mesh, PartitionSpec("data"))
batch = {name: jax.make_array_from_process_local_data(rows, column) for name, column in part.items()}
value, slope = jax.jit(jax.value_and_grad(loss))(replicate(start_weights(), mesh), batch)
found["loss"], found["gradient"] = float(value), {k: np.asarray(v).tolist() for k, v in slope.items()}
found["whole batch"] = distributed.fetch(batch["y"]).tolist()

# The fit loop, on data that both have; both write the checkpoint.
losses = []
def after(step, state, metrics):
    losses.append(float(metrics["loss"]))
    checkpoints.save(folder / "by two", step, state)
found["losses"] = losses
state = fit(update, draw, start_weights(), dataset(), key=jax.random.key(2), stop=6, chunk=2,
            mesh=mesh, after=after)
found["weights"] = {k: np.asarray(v).tolist() for k, v in state.items()}

# Checkpoints of two processes, and of one with eight devices; a damaged one is passed over by both.
like = jax.eval_shape(start_weights)
for name in ("by two", "by one"):
    found[name] = {k: np.asarray(v).tolist() for k, v in checkpoints.restore(folder / name, like).items()}
restored, step, reasons = checkpoints.restore_newest(folder / "damaged", like)
found["damaged"] = step, len(reasons), {k: np.asarray(v).tolist() for k, v in restored.items()}
checkpoints.save(folder / "of each its own", 1, jax.device_put(start_weights()))

# What processes agree on.
found["agreed"] = distributed.agree(me == 1, False, True)
found["told"] = distributed.from_main(lambda: f"from process {me}")
def refuse():
    raise UserError(f"refused by process {me}")
try:
    distributed.from_main(refuse)
except UserError as error:
    found["refused"] = str(error)
with distributed.main_first("file"):
    (folder / "order").open("a").write(str(me))
found["only"] = distributed.only_main(lambda: (folder / "only").write_text(str(me)))
(folder / f"{me}.json").write_text(json.dumps(found))
"""
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def child(folder, port, process):
    environment = os.environ | {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), str(port), str(process)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module")
def work() -> dict:
    scope: dict = {}
    exec(WORK, scope)
    return scope


@pytest.fixture(scope="module")
def two(tmp_path_factory, work):
    """What two processes found, and the folder of their checkpoints."""
    folder, port = tmp_path_factory.mktemp("two"), free_port()
    eight = replicate(work["start_weights"](), data_mesh())
    assert len(eight["a"].sharding.device_set) == 8
    checkpoints.save(folder / "by one", 1, eight)
    for step in (1, 2):
        checkpoints.save(folder / "damaged", step, jax.tree.map(lambda x, k=step: k * x, eight))
    for path in (folder / "damaged" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    started = [child(folder, port, process) for process in range(2)]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    return folder, [json.loads((folder / f"{process}.json").read_text()) for process in range(2)]


def close(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_each_process_gives_its_part_of_the_batch_and_gets_the_gradient_of_all(two, work):
    batch = jax.tree.map(lambda x: x[:8], work["dataset"]())
    value, slope = jax.value_and_grad(work["loss"])(work["start_weights"](), batch)
    for found in two[1]:
        np.testing.assert_allclose(found["whole batch"], batch["y"])
        np.testing.assert_allclose(found["loss"], value, rtol=1e-5)
        close(found["gradient"], slope)


def test_the_fit_loop_makes_the_losses_and_weights_of_one_process(two, work):
    losses = []
    state = fit(
        work["update"],
        work["draw"],
        work["start_weights"](),
        work["dataset"](),
        key=jax.random.key(2),
        stop=6,
        chunk=2,
        after=lambda step, state, metrics: losses.append(float(metrics["loss"])),
    )
    for found in two[1]:
        np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
        close(found["weights"], state)
    assert two[1][0] == {**two[1][1], "only": 1}  # the same bits on both


def test_checkpoints_go_from_two_processes_to_one_and_back(two, work):
    folder, both = two
    like = jax.eval_shape(work["start_weights"])
    restored = checkpoints.restore(folder / "by two", like)
    assert checkpoints.steps(folder / "by two") == [6, 4]
    for name, value in work["start_weights"]().items():
        assert restored[name].sharding.device_set == {jax.devices()[0]}
        for found in both:
            np.testing.assert_array_equal(found["by one"][name], value)
            np.testing.assert_array_equal(found["by two"][name], found["weights"][name])
            np.testing.assert_array_equal(restored[name], found["weights"][name])
    on_all = checkpoints.restore(folder / "by two", replicate(work["start_weights"](), data_mesh()))
    on_two = checkpoints.restore(
        folder / "by one", replicate(work["start_weights"](), data_mesh(jax.devices()[:2]))
    )
    assert len(on_all["a"].sharding.device_set) == 8 and len(on_two["a"].sharding.device_set) == 2
    np.testing.assert_array_equal(on_all["a"], restored["a"])
    np.testing.assert_array_equal(on_two["a"], work["start_weights"]()["a"])
    np.testing.assert_array_equal(
        checkpoints.restore(folder / "of each its own", like)["a"], work["start_weights"]()["a"]
    )


def test_both_pass_over_a_damaged_checkpoint(two, work):
    folder, both = two
    for found in both:
        step, reasons, restored = found["damaged"]
        assert (step, reasons) == (1, 1)
        close(restored, work["start_weights"]())
    assert checkpoints.steps(folder / "damaged") == [1] and (folder / "damaged" / "2.unreadable").is_dir()


def test_what_processes_agree_on(two):
    folder, both = two
    for found in both:
        assert found["agreed"] == [True, False, True]
        assert found["told"] == "from process 0" and found["refused"] == "refused by process 0"
    assert (folder / "order").read_text() == "01" and (folder / "only").read_text() == "0"
    assert both[1]["only"] is None


def test_settings_come_from_flags_before_the_environment():
    assert settings(environment={}) is None
    assert settings(environment=KNOWN) == ("node0:1234", 4, 2)
    assert settings("node1:99", process=0, environment=KNOWN) == ("node1:99", 4, 0)
    assert settings("auto", environment={}) == "auto"
    assert settings("node0:1234", 1, 0, environment={}) is None  # one process needs no others


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (("node0:1234", None, None), {}, "no --processes and no --process"),
        ((None, None, 3), {}, "no --distributed HOST:PORT"),
        (("node0:1234", 2, 2), {}, "--process is 2"),
        (("node0", 2, 0), {}, "HOST:PORT"),
        ((None, None, None), {**KNOWN, "JDP_PROCESS": "two"}, "JDP_PROCESS is 'two'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, environment, expected):
    with pytest.raises(UserError, match=expected):
        settings(*given, environment=environment)


def test_a_port_that_is_taken_is_refused():
    with (
        socket.create_server(("127.0.0.1", 0)) as s,
        pytest.raises(UserError, match=r"cannot be used .*in use"),
    ):
        start(f"127.0.0.1:{s.getsockname()[1]}", 2, 0)
    with pytest.raises(UserError, match="99999: that port cannot be used"):
        start("127.0.0.1:99999", 2, 0)


def test_a_process_that_finds_no_process_0_says_so():
    with pytest.raises(UserError, match=r"process 1 found no process 0 at 127\.0\.0\.1"):
        start(f"127.0.0.1:{free_port()}", 2, 1, timeout=0)
    assert not is_many()


def test_alone_there_is_nothing_to_wait_for():
    assert is_main() and from_main(lambda: "x" * 10_000) == "x" * 10_000
    assert jnp.asarray(1).is_fully_addressable
