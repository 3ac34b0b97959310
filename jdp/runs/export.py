"""A trained policy as one file that acts without jdp: two `jax.export` functions and a card.

The file is a zip of `start` and `act` (serialised `jax.export.Exported`, weights and normalisers in them)
and `card.json`, which says what they take and give. What a policy remembers is a flat tuple of arrays there,
since its NamedTuples cannot be rebuilt where jdp is not:

    start(observation [B, O]) -> carry
    act(key_data [2] uint32, carry, observation [B, O]) -> (carry, action [B, A])
    act(key_data, carry, observation, goal [B, G]) -> (carry, action), of tasks with goals

Equal keys, carries and observations give equal actions.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.runs.boxes import read_box, write_box
from jdp.types import Json, Policy, PyTree, Spec

FORMAT = "jdp policy 1"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # what an export can be made for


class ExportedPolicy(NamedTuple):
    """What `read_export` gives: the functions, jitted, and what is known about them."""

    card: Json
    start: Callable[..., Any]
    act: Callable[..., Any]


def export_policy(
    path: str | Path,
    policy: Policy,
    state: PyTree,
    spec: Spec,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    batch: int | None = None,
    facts: Json | None = None,
) -> Json:
    """Writes `policy` with the weights `state` to the file `path`, and returns its card.

    Args:
        policy: of a method, for instance `method.policy`.
        state: of one seed.
        platforms: that the file is to run on; none of them need be here.
        batch: how many environments it acts in at once; None: any number, chosen when it is called.
        facts: goes into the card beside what the functions say themselves (dataset, command, commit, ...).

    Raises:
        UserError: if flatbuffers is not installed, a platform is unknown, `path` is a folder or a device, or
            the policy cannot be traced for any number of environments (give `batch`).
        StorageError: if the file cannot be written.
    """
    _check(platforms, batch)
    start, act, arguments = _flat(policy, state, spec, batch)
    try:
        made = {
            "start": jax.export.export(jax.jit(start), platforms=platforms)(arguments["observation"]),
            "act": jax.export.export(jax.jit(act), platforms=platforms)(*arguments.values()),
        }
    except jax.errors.InconclusiveDimensionOperation as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"this policy depends on how many environments there are ({reason[:160]}): export it for a fixed "
            "number, batch=1"
        ) from error
    card = {
        "format": FORMAT,
        **(facts or {}),
        "observation": spec.observation_dim,
        "action": spec.action_dim,
        "goal": list(spec.goal),
        "batch": batch or "any",
        "platforms": list(platforms),
        "jax": jax.__version__,
        **_signatures(policy, arguments, spec),
    }
    write_box(Path(path), card, {name: bytes(exported.serialize()) for name, exported in made.items()})
    return card


def _check(platforms: Sequence[str], batch: int | None) -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError('exported policies need flatbuffers: pip install "jdp[export]"')
    unknown = [p for p in platforms if p not in PLATFORMS]
    if unknown or not platforms:
        raise UserError(f"no platform {' '.join(unknown) or 'given'}: choose of {', '.join(PLATFORMS)}")
    if batch is not None and batch < 1:
        raise UserError(f"batch is {batch}: give the number of environments, or none for any number")


def _flat(policy: Policy, state: PyTree, spec: Spec, batch: int | None) -> tuple[Any, Any, Json]:
    """`start` and `act` with the weights bound and the carry flattened, and the shapes of their arguments."""
    rows = batch or jax.export.symbolic_shape("b")[0]
    observation = jax.ShapeDtypeStruct((rows, spec.observation_dim), jnp.float32)
    weights = jax.device_get(state)  # so that neither this device nor its sharding is exported
    tree = jax.tree.structure(jax.eval_shape(policy.init, observation))

    def start(observation: Array) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(policy.init(observation)))

    def act(key_data: Array, carry: tuple[Array, ...], observation: Array, *goal: Array):
        key, bound = jax.random.wrap_key_data(key_data), jax.tree.map(jnp.asarray, weights)
        reach = goal[0] if goal else jnp.zeros((observation.shape[0], 0), observation.dtype)
        carried, decision = policy.act(key, bound, jax.tree.unflatten(tree, carry), observation, reach)
        return tuple(jax.tree.leaves(carried)), spec.task_actions(decision.action)

    arguments: dict[str, Any] = {
        "key_data": jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))),
        "carry": jax.eval_shape(start, observation),
        "observation": observation,
    }
    if spec.goal:
        arguments["goal"] = jax.ShapeDtypeStruct((rows, len(spec.goal)), jnp.float32)
    return start, act, arguments


def _signatures(policy: Policy, arguments: Mapping[str, Any], spec: Spec) -> Json:
    """What the functions take and give: their arguments, and type, shape and meaning of each array."""
    observation, rows = arguments["observation"], arguments["observation"].shape[0]
    carry = jax.tree_util.tree_flatten_with_path(jax.eval_shape(policy.init, observation))[0]
    names = ", ".join(arguments)
    described = {
        "key_data": f"{_kind(arguments['key_data'])}: jax.random.key_data of a key, a new one for every call",
        "carry": [f"{jax.tree_util.keystr(where).strip('.')}: {_kind(leaf)}" for where, leaf in carry],
        "observation": f"{_kind(observation)}: in the units of the task",
        "action": f"float32 [{rows}, {spec.action_dim}]: in the units of the task, to be clipped to its box",
    }
    if spec.goal:
        entries = ", ".join(map(str, spec.goal))
        described["goal"] = f"{_kind(arguments['goal'])}: what entries {entries} of the observation shall be"
    functions = {"start": "(observation) -> carry", "act": f"({names}) -> (carry, action)"}
    return {"functions": functions, "arrays": described}


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype.name} [{', '.join(map(str, leaf.shape))}]"


def read_export(path: str | Path) -> ExportedPolicy:
    """The functions and the card of a file that `export_policy` wrote.

    Raises:
        UserError: if the file is another one, or flatbuffers is not installed; and, by the functions, for
            observations of another size than the card says.
    """
    _check(("cpu",), None)
    card, found = read_box(Path(path), FORMAT, "policy exported by jdp")
    try:
        start, act = (jax.export.deserialize(bytearray(found[name])) for name in ("start", "act"))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is a damaged export ({error}): make it again with export.py") from error

    def checked(function: Callable[..., Any], at: int) -> Callable[..., Any]:
        compiled = jax.jit(function)

        def call(*arguments: Any) -> Any:
            shape = jnp.shape(arguments[at])
            if len(shape) != 2 or shape[1] != card["observation"]:
                raise UserError(
                    f"{path} takes observations of shape (environments, {card['observation']}), not {shape}"
                )
            return compiled(*arguments)

        return call

    return ExportedPolicy(card, checked(start.call, 0), checked(act.call, 2))
