"""Training in memory: the keys of its updates, its rows in files, seeds, interruptions, named draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import agent, bits

import jdp
from jdp.data import RowFiles, SegmentDraw, TransitionDraw, prepared
from jdp.data.draws import batches
from jdp.data.episodes import Origin, make_episodes
from jdp.devices import data_mesh
from jdp.errors import UserError
from jdp.loops import INIT, Memory, train, train_in_rounds, training_seconds
from jdp.types import Learner, Spec

KEY = jax.random.key(3)


def dataset(n=300, lengths=50):
    rng = np.random.default_rng(0)
    ends = np.arange(1, n + 1) % lengths == 0
    normal = rng.normal(size=(n, 6)).astype(np.float32)
    return make_episodes(
        normal[:, :2],
        np.tanh(normal[:, 2:3]),
        normal[:, 3],
        normal[:, 4:6],
        np.zeros(n, bool),
        ends,
        spec=Spec(2, 1),
        origin=Origin("toy", "file", "", "toy", 0, ""),
    )


DATA = dataset()
METHOD = agent()
ROWS = prepared(METHOD.learner.draws, DATA)


def trained(updates=24, **options):
    options = {"key": KEY, "updates": updates, "batch_size": 16, "chunk": 10} | options
    return train(METHOD.learner, ROWS, **options)


def test_training_is_a_plain_loop_over_its_keys():
    state = METHOD.learner.init(jax.random.fold_in(KEY, INIT), METHOD.learner.draws.view(ROWS))
    draw = batches(METHOD.learner.draws, 16)
    for i in range(5):
        keys = jax.random.split(jax.random.fold_in(KEY, i))
        state, _ = METHOD.learner.update(keys[1], state, draw(keys[0], jnp.asarray(ROWS)))
    for found, wanted in zip(jax.tree.leaves(trained(5)), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_seed_of_many_has_its_own_weights_and_batches():
    found = trained(seeds=3)
    assert found["w"].shape == (3, 2, 1)
    assert len({leaf.tobytes() for leaf in np.asarray(found["w"])}) == 3


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("seeds", [None, 2])
def test_rows_in_files_give_the_bits_of_rows_in_memory(tmp_path, devices, seeds):
    mesh = data_mesh(jax.devices()[:devices])
    rows = prepared(METHOD.learner.draws, DATA, RowFiles(tmp_path))
    assert isinstance(rows, np.memmap)
    options = {"key": KEY, "updates": 24, "batch_size": 16, "seeds": seeds, "mesh": mesh, "chunk": 10}
    found = train(METHOD.learner, rows, stream=True, **options)
    assert bits(found) == bits(train(METHOD.learner, ROWS, **options))


def test_the_journal_sees_every_chunk_with_its_loss_and_seconds():
    journal, shown = Memory(), []

    class Bar:
        def __init__(self, label, total, unit, start=0):
            shown.append((label, total, unit, start))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def at(self, done, **notes):
            shown.append((done, sorted(notes)))

    journal.progress = Bar
    trained(journal=journal, phase="planner")
    assert [r["step"] for r in journal.records("planner")] == [10, 20, 24]
    assert shown == [("train planner", 24, "update", 0), *((k, ["loss"]) for k in (10, 20, 24))]
    assert training_seconds(journal, "planner") > 0


def test_a_loss_that_is_not_finite_ends_training_with_one_line():
    def update(key, state, batch):
        return state, {"loss": jnp.float32(jnp.nan)}

    learner = METHOD.learner._replace(update=update)
    with pytest.raises(UserError, match="policy: the loss is not finite at step 5") as error:
        train(learner, ROWS, key=KEY, updates=9, batch_size=4, chunk=5, phase="policy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seeds", [None, 2])
def test_training_that_stops_goes_back_to_the_last_good_chunk_and_says_so(seeds):
    told, saved = [], []
    journal = Memory(note=told.append)
    journal.save = lambda phase, step, state: saved.append((phase, step, bits(state)))

    def stop(state, metrics):
        assert metrics["loss"].shape == (() if seeds is None else (2,)) and state["w"].shape[-2:] == (2, 1)
        return "too far" if len(journal.records("agent")) == 2 else None

    found = trained(44, seeds=seeds, journal=journal, phase="agent", stop_when=stop)
    assert bits(found) == bits(trained(20, seeds=seeds))
    assert told == ["agent stopped at update 30, back to 20: too far"]
    assert saved == [("agent", 20, bits(found))]
    assert [r["step"] for r in journal.records("agent")] == [10, 20, 30]
    begun = trained(44, seeds=seeds, stop_when=lambda *_: "at once")
    assert bits(begun) == bits(trained(0, seeds=seeds))
    assert bits(trained(24, seeds=seeds, stop_when=lambda *_: None)) == bits(trained(24, seeds=seeds))


def test_named_draws_reach_init_and_update_under_their_names(tmp_path):
    draws = {"pairs": TransitionDraw(2, 1), "segments": SegmentDraw((0, 1, 2))}

    def init(key, data):
        return jnp.mean(data["pairs"].reward) + jnp.mean(data["segments"].reward)

    def update(key, state, batch):
        loss = jnp.mean(batch["pairs"].reward) * jnp.mean(batch["segments"].reward)
        return state + loss, {"loss": loss}

    learner = Learner(init, update, draws)
    options = {"key": KEY, "updates": 7, "batch_size": 4, "seeds": 2}
    found = train(learner, prepared(draws, DATA), **options)
    assert found.shape == (2,) and np.isfinite(found).all()
    files = prepared(draws, DATA, RowFiles(tmp_path))
    assert bits(train(learner, files, stream=True, **options)) == bits(found)


def rounds(journal=None, **options):
    settings = {"key": KEY, "seeds": 2, "updates": 50, "every": 20, "batch_size": 16, "journal": journal}
    return train_in_rounds(METHOD, ROWS, **settings | options)


def test_rounds_change_no_bit_and_are_evaluated_when_due():
    played = []
    journal = Memory()
    found = rounds(journal, evaluate=lambda step, states: played.append(step) or {"returns": [step]})
    assert played == [20, 40, 50]
    assert [r["returns"] for r in journal.records("agent/evaluation")] == [[20], [40], [50]]
    assert bits(rounds(every=50)) == bits(found)
    played.clear()
    rounds(evaluate=lambda step, states: played.append(step) or {}, evaluate_every=40)
    assert played == [40, 50]


def test_the_dataset_in_files_trains_agents_too(tmp_path):
    rows = prepared(METHOD.learner.draws, DATA, RowFiles(tmp_path))
    found = train_in_rounds(METHOD, rows, key=KEY, seeds=2, updates=50, every=20, batch_size=16, stream=True)
    assert bits(found) == bits(rounds())


def test_each_round_draws_from_the_pool_made_for_it_by_the_policies_of_then():
    seen = []

    def pool_for(begin, states):
        seen.append((begin, np.asarray(states["w"]).copy()))
        made = jdp.data.Experience(
            np.full((2, 5, 4, 2), float(begin), np.float32),
            np.zeros((2, 5, 4, 1), np.float32),
            np.zeros((2, 5, 4), np.float32),
            np.zeros((2, 5, 4), np.float32),
            np.ones((2, 5, 4), bool),
        )
        return jdp.data.pool(ROWS, made)

    found = rounds(pool_for=pool_for, real_share=0.5)
    assert [begin for begin, _ in seen] == [0, 20, 40]
    assert len({w.tobytes() for _, w in seen}) == 3
    assert bits(found) != bits(rounds())
    assert bits(rounds(pool_for=pool_for, real_share=0.5)) == bits(found)
    with pytest.raises(UserError, match="without stream"):
        rounds(pool_for=pool_for, stream=True)
