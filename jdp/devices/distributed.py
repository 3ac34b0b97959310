"""Many processes, one run: each drives its own devices, all hold the same state, process 0 writes.

Every process makes the same calls in the same order; what they must agree on (a directory's name, whether
to stop) is exchanged here. Without `start` there is one process, and none of this costs anything.
"""

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdp.errors import UserError

T = TypeVar("T")
_TEXT = 4096  # bytes of what process 0 can tell the others at once
_scratch: list[tempfile.TemporaryDirectory] = []


def settings(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[str, int, int] | str | None:
    """`(HOST:PORT of process 0, processes, this process)`, "auto", or None for a process alone.

    What is not given is read from JDP_COORDINATOR, JDP_PROCESSES and JDP_PROCESS.

    Raises:
        UserError: if only some of the three are known, or they cannot be.
    """

    def number(given: int | None, name: str) -> int | None:
        text = environment.get(name, "")
        if given is not None or not text:
            return given
        if not text.isdigit():
            raise UserError(f"{name} is {text!r}: give a whole number")
        return int(text)

    address = address or environment.get("JDP_COORDINATOR") or None
    processes, process = number(processes, "JDP_PROCESSES"), number(process, "JDP_PROCESS")
    if address == "auto" or (address is None and processes is None and process is None):
        return address
    wanted = {"--distributed HOST:PORT": address, "--processes": processes, "--process": process}
    if missing := [name for name, value in wanted.items() if value is None]:
        raise UserError(f"many processes need {', '.join(wanted)} (or JDP_*): no {' and no '.join(missing)}")
    assert address is not None and processes is not None and process is not None
    if processes < 1:
        raise UserError(f"--processes is {processes}: it must be at least 1")
    if not 0 <= process < processes:
        raise UserError(f"--process is {process}: of {processes} processes the last is {processes - 1}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--distributed {address}: give HOST:PORT of process 0, or auto")
    return (address, processes, process) if processes > 1 else None


def start(
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 300,
) -> None:
    """Joins this process to the others (see `settings`), before anything asks JAX for its devices.

    "auto" leaves it to JAX to find them, which knows Slurm, TPU pods, Kubernetes and MPI.

    Raises:
        UserError: if the settings cannot be, or process 0 cannot be reached within `timeout` seconds. (When
            others do not come to process 0, JAX itself ends it: abort, status 134.)
    """
    found = settings(address, processes, process)
    if found is None:
        return
    if not isinstance(found, str):
        if found[2] == 0:
            _check_free(found[0])
        else:
            _await_main(found[0], found[2], timeout)
    # Its handler of SIGTERM would replace that of the scripts.
    jax.config.update("jax_enable_preemption_service", False)
    where = (None, None, None) if isinstance(found, str) else found
    # On Slurm the detection would also leave each process one device alone.
    detection = None if isinstance(found, str) else "deactivate"
    try:
        jax.distributed.initialize(*where, cluster_detection_method=detection, initialization_timeout=timeout)
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(found, str):
            raise UserError(
                "--distributed auto: JAX found no cluster here: give --distributed HOST:PORT, --processes "
                "and --process"
            ) from error
        raise UserError(
            f"process {where[2]} of {where[1]} cannot join the others at {where[0]}: {_first_line(error)}"
        ) from error


def _check_free(address: str) -> None:
    """Raises `UserError` where JAX, as process 0, would crash on its own port."""
    try:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--distributed {address}: that port cannot be used ({error}): choose another"
        ) from error


def _await_main(address: str, process: int, timeout: float) -> None:
    """Waits until process 0 listens: where it never does, JAX would abort, without an exception."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                return
        except (OSError, OverflowError) as error:
            if time.monotonic() > end:
                raise UserError(
                    f"process {process} found no process 0 at {address} within {timeout:g} s "
                    f"({error}): start all of them, with one address that all can reach"
                ) from error
        time.sleep(0.2)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_many() -> bool:
    """Whether there are other processes."""
    return jax.distributed.is_initialized()


def is_main() -> bool:
    """Whether this is process 0, which writes results and speaks."""
    return number() == 0


def number() -> int:
    """Of this process."""
    return jax.process_index() if is_many() else 0


def barrier(name: str) -> None:
    """Waits until all processes have come to the barrier of this name."""
    if is_many():
        multihost_utils.sync_global_devices(name)


def only_main(function: Callable[..., T], *args: Any) -> T | None:
    """`function(*args)` on process 0, None on the others, all of which wait for it."""
    try:
        return function(*args) if is_main() else None
    finally:
        barrier(getattr(function, "__name__", "only_main"))


@contextmanager
def main_first(name: str) -> Iterator[None]:
    """Process 0 goes through the block while the others wait, then they do: for files that it makes."""
    if not is_main():
        barrier(name)
    try:
        yield
    finally:
        if is_main():
            barrier(name)


def agree(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true on all processes if it is on any."""
    if not is_many():
        return flags
    return tuple(bool(x) for x in multihost_utils.process_allgather(np.array(flags)).any(axis=0))


def from_main(make: Callable[[], str]) -> str:
    """The text that `make` gives on process 0, on all processes; its `UserError` too."""
    if not is_many():
        return make()
    told, raised = {}, None
    if is_main():
        try:
            told = {"text": make()}
        except UserError as error:
            raised, told = error, {"error": str(error)[: _TEXT // 8]}
    line = np.frombuffer(json.dumps(told).encode().ljust(_TEXT), np.uint8)
    told = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(line))))
    if "error" in told:
        raise raised or UserError(told["error"])
    return told["text"]


def spread(tree: Any, mesh: Mesh) -> Any:
    """`tree`, which is the same on every process, on every device of a mesh that spans them."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def one(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, everywhere)
        # Unlike device_put, this does not compare the values of all processes.
        values = np.asarray(x)
        values = values.astype(jax.dtypes.canonicalize_dtype(values.dtype))
        return jax.make_array_from_callback(values.shape, everywhere, lambda index: values[index])

    return jax.tree.map(one, tree)


def fetch(x: jax.Array) -> np.ndarray:
    """The whole of an array on the host, also where its parts lie on several processes."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def scratch() -> Path:
    """A new folder of this process alone, deleted when it ends."""
    _scratch.append(tempfile.TemporaryDirectory(prefix="jdp-"))
    return Path(_scratch[-1].name)


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Ends this process with an exit status; of many, without waiting for the others, which may hang.

    `at_once` skips what Python does at its end for a process alone too.
    """
    if not is_many() and not at_once:
        sys.exit(code)
    for folder in _scratch:
        folder.cleanup()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    if is_many() and is_main():
        time.sleep(2)  # those that end alike go first: without process 0 they would be aborted
    os._exit(code)
