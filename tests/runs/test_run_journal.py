"""The journal of a run directory: a run that was cut goes on to the same bits, and stops when it is asked."""

import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.loops import train, train_in_rounds
from jdp.loops.online import train_online
from jdp.loops.online_host import train_online_host
from jdp.runs import RunJournal, checkpoints, preemption, start_run

sys.path.append(str(Path(__file__).parents[1] / "loops"))
from hand_made import bits
from test_online import ON as ONLINE
from test_online import TASK as COUNTER
from test_online_host import Hosted
from test_train import KEY, METHOD, ROWS


@pytest.fixture
def run(tmp_path):
    return start_run(tmp_path, "toys", "toy", {"seed": 0}, {})


class Cut(Exception):
    pass


class CutJournal(RunJournal):
    """Stops after the chunk that ends with `at`, as a process that is killed."""

    at = 0

    def after(self, phase, step, last, state, metrics):
        super().after(phase, step, last, state, metrics)
        if step == self.at:
            raise Cut


def options(journal, **more):
    return {"key": KEY, "batch_size": 16, "seeds": 2, "chunk": 10, "journal": journal} | more


def cut(run, at, **more):
    journal = CutJournal(run, checkpoint_minutes=0)
    journal.at = at
    with pytest.raises(Cut):
        train(METHOD.learner, ROWS, **options(journal, updates=50, phase="agent", **more))


def test_a_run_that_was_cut_goes_on_to_the_same_bits(run):
    whole = bits(train(METHOD.learner, ROWS, **options(None, updates=50)))
    cut(run, 20)
    assert checkpoints.latest(run.folder("agent")) == 20
    run.log("agent", 30, {"loss": 1.0})  # of the chunk in which it was killed
    journal = RunJournal(run)
    assert bits(train(METHOD.learner, ROWS, **options(journal, updates=50, phase="agent"))) == whole
    assert [r["step"] for r in journal.records("agent")] == [10, 20, 30, 40, 50]
    assert checkpoints.latest(run.folder("agent")) == 50
    again = train(METHOD.learner, ROWS, **options(journal, updates=50, phase="agent"))
    assert bits(again) == whole and len(journal.records("agent")) == 5  # nothing is done twice


def test_what_is_saved_beside_the_state_comes_with_it(run):
    saved = {"mean": np.arange(3.0, dtype=np.float32)}
    cut(run, 10, saved=saved)
    state, step = RunJournal(run).begin("agent", lambda: checkpoint_like(run), saved=saved)
    assert step == 10 and set(state) == {"w", "shift"}


def checkpoint_like(run):
    keys = jax.random.split(jax.random.key(0), 2)
    view = METHOD.learner.draws.view(ROWS)
    return jax.vmap(METHOD.learner.init, in_axes=(0, None))(keys, view)


def test_a_damaged_checkpoint_is_set_aside_with_a_note(run):
    whole = bits(train(METHOD.learner, ROWS, **options(None, updates=50)))
    cut(run, 20)
    (run.folder("agent") / "20" / "default" / "_METADATA").unlink()
    told = []
    journal = RunJournal(run, note=told.append)
    assert bits(train(METHOD.learner, ROWS, **options(journal, updates=50, phase="agent"))) == whole
    assert len(told) == 1 and told[0].endswith("set aside; going on from step 10")


def test_rounds_that_were_cut_are_neither_trained_nor_played_again(run):
    played = []

    def rounds(journal):
        more = {
            "updates": 50,
            "every": 20,
            "evaluate": lambda step, s: played.append(step) or {"returns": []},
        }
        return bits(train_in_rounds(METHOD, ROWS, **options(journal, **more)))

    whole = rounds(None)
    played.clear()
    journal = CutJournal(run)
    journal.at = 30
    with pytest.raises(Cut):
        rounds(journal)
    assert played == [20] and checkpoints.steps(run.folder("agent")) == [20]
    assert rounds(RunJournal(run)) == whole
    assert played == [20, 40, 50]


@pytest.mark.parametrize("when", [20, 50])
def test_an_evaluation_that_was_cut_is_made_again(run, when):
    played, cuts = [], [Cut()]

    def evaluate(step, states):
        if step == when and cuts:
            raise cuts.pop()
        played.append(step)
        return {"returns": [step]}

    more = {"updates": 50, "every": 20, "evaluate": evaluate}
    with pytest.raises(Cut):
        train_in_rounds(METHOD, ROWS, **options(RunJournal(run), **more))
    assert checkpoints.latest(run.folder("agent")) == when  # trained, but not played
    train_in_rounds(METHOD, ROWS, **options(RunJournal(run), **more))
    assert played == [20, 40, 50]


def test_arrays_of_a_round_are_made_once_and_kept_for_two(run):
    made = []

    def make(number):
        made.append(number)
        return {"x": np.full(3, number)}

    journal = RunJournal(run)
    for number in (0, 20, 40):
        for _ in range(2):
            np.testing.assert_array_equal(journal.kept("set", number, lambda n=number: make(n))["x"], number)
    assert made == [0, 20, 40]
    assert sorted(p.name for p in (run.path / "synthetic").iterdir()) == ["set-20.npz", "set-40.npz"]


def test_after_a_sigterm_the_chunk_is_saved_and_training_stops(run, monkeypatch):
    whole = bits(train(METHOD.learner, ROWS, **options(None, updates=50)))
    monkeypatch.setattr(preemption, "_asked", None)
    before = signal.getsignal(signal.SIGTERM)
    preemption.install()
    try:

        class Ask(RunJournal):
            def after(self, phase, step, last, state, metrics):
                if step == 20:
                    signal.raise_signal(signal.SIGTERM)
                super().after(phase, step, last, state, metrics)

        with pytest.raises(preemption.Preempted):
            train(METHOD.learner, ROWS, **options(Ask(run), updates=50, phase="agent"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert checkpoints.steps(run.folder("agent")) == [20]
    monkeypatch.setattr(preemption, "_asked", None)
    assert bits(train(METHOD.learner, ROWS, **options(RunJournal(run), updates=50, phase="agent"))) == whole


@pytest.mark.parametrize("acting", [OnPolicyConfig(4, 5), OffPolicyConfig(2, 1, 8, 64, 20)])
@pytest.mark.parametrize("on_host", [False, True])
def test_acting_that_was_cut_goes_on_to_the_same_bits(run, acting, on_host):
    """Environments, memories and buffers are part of the state."""
    method = ONLINE if isinstance(acting, OnPolicyConfig) else METHOD

    def trained(journal):
        options = {"key": KEY, "updates": 30, "seeds": 2, "chunk": 10, "journal": journal}
        if on_host:
            return bits(train_online_host(method, Hosted, COUNTER.spec, acting, **options))
        return bits(train_online(method, COUNTER, acting, **options))

    whole, journal = trained(None), CutJournal(run, checkpoint_minutes=0)
    journal.at = 20
    with pytest.raises(Cut):
        trained(journal)
    assert trained(RunJournal(run)) == whole
