"""Rollouts on a hand-made counting task: what is alive, what is stored, what an agent is fed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.data.episodes import Origin, make_episodes
from jdp.data.pools import Experience, to_transitions
from jdp.learning.actors import drawn_policy, mean_policy
from jdp.synthesis import branches, empty_rings, imagine, recorded, refill
from jdp.synthesis.imagined import rollout_program
from jdp.synthesis.rings import _refill_program
from jdp.types import Bound, Decision, Learner, Normal, Policy, Spec, TanhNormal, WorldModel, unpack
from jdp.world_models import REPLAY, HistoryDraw, Noisy, RolloutConfig, noisy_policy, rollout

LIMIT, T, B = 5.0, 6, 4


def _start(observations, actions):
    return observations[:, -1]


def _step(key, state, carry, action, *, explode):
    """The observation (count, last action): counts up by one, ends at the limit; reward 10 * count."""
    count = carry[:, 0]
    following = jnp.stack([count + state, action[:, 0]], axis=-1)
    if explode:
        following = jnp.where((count == 2.0)[:, None], jnp.nan, following)
    return following, following, 10 * count, following[:, 0] >= LIMIT


def counter(explode: bool = False) -> WorldModel:
    never_called = Bound(_start, ())  # the model is exact
    return WorldModel(
        learner=Learner(never_called, never_called, HistoryDraw(2, 1)),
        start=Bound(_start, ()),
        step=Bound(_step, (("explode", explode),)),
    )


def _act(state, observation):
    mean = jnp.broadcast_to(state, (*observation.shape[:-1], 1))
    return Normal(mean, jnp.zeros_like(mean))


def histories(counts):
    observations = jnp.stack([jnp.asarray(counts, jnp.float32), jnp.zeros(len(counts))], axis=-1)
    return observations[:, None], jnp.zeros((len(counts), 0, 1))


MEAN, DRAWN, NOISY = mean_policy(_act), drawn_policy(_act), noisy_policy(_act)


def counted(model, counts=(0.0, 2.0, 4.0, 4.5), policy=MEAN, acting=0.5):
    acting = jax.tree.map(jnp.float32, acting)
    return rollout(jax.random.key(0), model, jnp.float32(1.0), policy, acting, *histories(counts), length=T)


def act(policy, state, observation):
    carry = policy.init(observation)
    return policy.act(jax.random.key(1), state, carry, observation, jnp.zeros((len(observation), 0)))[
        1
    ].action


def test_a_rollout_ends_where_the_task_ends():
    found = counted(counter())
    # From count c the steps to 5 are: 5, 3, 1, 1; T = 6.
    np.testing.assert_array_equal(found.alive.sum(axis=1), [5, 3, 1, 1])
    assert (np.diff(np.asarray(found.alive).astype(int), axis=1) <= 0).all()  # a prefix
    rows, alive = found.transitions, np.asarray(found.alive)
    np.testing.assert_array_equal((np.asarray(rows.terminal) * alive).sum(axis=1), [1, 1, 1, 1])
    np.testing.assert_array_equal(rows.observation[0, :5, 0], np.arange(5))
    np.testing.assert_array_equal(rows.next_observation[0, :5, 0], 1 + np.arange(5))
    np.testing.assert_array_equal(rows.reward[0, :5], 10 * np.arange(5))
    # Row t + 1 goes on from where row t led.
    np.testing.assert_array_equal(
        rows.observation[:, 1:][alive[:, 1:]], rows.next_observation[:, :-1][alive[:, 1:]]
    )


def test_a_step_that_is_not_finite_kills_its_rollout_and_is_not_stored():
    found = counted(counter(explode=True))
    np.testing.assert_array_equal(found.alive.sum(axis=1), [2, 0, 1, 1])
    kept = np.asarray(found.transitions.next_observation)[np.asarray(found.alive)]
    assert np.isfinite(kept).all()


def test_policies():
    played = jnp.arange(B * T, dtype=jnp.float32).reshape(B, T, 1) / 100
    found = counted(counter(), policy=REPLAY, acting=played).transitions.action
    np.testing.assert_array_equal(found, played)
    still = counted(counter(), policy=NOISY, acting=Noisy(0.5, 0.0)).transitions.action  # type: ignore[arg-type]
    np.testing.assert_array_equal(still, np.full((B, T, 1), 0.5, np.float32))
    noisy = act(NOISY, Noisy(jnp.float32(0.9), jnp.float32(0.3)), jnp.zeros((4000, 2)))
    assert float(noisy.max()) == 1.0  # clipped to the box
    assert (
        abs(float(jnp.std(noisy[noisy < 1.0] - 0.9)) - 0.18) < 0.02
    )  # half a Gaussian is left: .3 sqrt(1 - 2 / pi)

    def squashed(state, observation):
        return TanhNormal(jnp.zeros((*observation.shape[:-1], 1)), jnp.ones((*observation.shape[:-1], 1)))

    drawn = act(drawn_policy(squashed), None, jnp.zeros((4000, 2)))
    assert abs(float(jnp.std(jnp.arctanh(drawn))) - 1.0) < 0.05


def _every_other(key, state, carry, observation, goal):
    """Decides at every other step and repeats the action then: a policy with a memory, as of chunks."""
    due = carry[:, 0] % 2 == 0
    action = jnp.where(due[:, None], observation[:, :1] / 10, carry[:, 1:])
    return jnp.concatenate([carry[:, :1] + 1, action], axis=1), Decision(action, due)


def test_a_policy_with_a_memory_is_rolled_out():
    chunks = Policy(lambda observation: jnp.zeros((len(observation), 2)), _every_other)
    found = counted(counter(), counts=(0.0,), policy=chunks).transitions.action
    np.testing.assert_allclose(found[0, :, 0], [0, 0, 0.2, 0.2, 0.4, 0.4], rtol=1e-6)


def toy(lengths=(7, 3), terminated=(True, False)):
    """Episodes whose observation is (row number, 0) and whose action is row / 100."""
    n = sum(lengths)
    stops = np.cumsum(lengths)
    ends = np.zeros(n, bool)
    ends[stops - 1] = True
    terminals = np.zeros(n, bool)
    terminals[stops[list(terminated)] - 1] = True
    rows = np.arange(n, dtype=np.float32)
    observations = np.stack([rows, np.zeros(n, np.float32)], axis=1)
    return make_episodes(
        observations,
        rows[:, None] / 100,
        rows,
        observations + np.array([1, 0], np.float32),
        terminals,
        ends & ~terminals,
        spec=Spec(2, 1),
        origin=Origin("toy", "file", "", "", 0, ""),
    )


def test_histories_stay_within_their_episode():
    data = toy()
    observations, actions = branches(np.random.default_rng(0), data, 3, (2, 200))
    last = observations[..., -1, 0].astype(int)
    first = np.where(last >= 7, 7, 0)
    expected = np.maximum(last[..., None] + np.array([-2, -1, 0]), first[..., None])
    np.testing.assert_array_equal(observations[..., 0], expected)
    inside = last[..., None] + np.array([-2, -1]) >= first[..., None]
    np.testing.assert_allclose(actions[..., 0], np.where(inside, expected[..., :-1] / 100, 0.0), rtol=1e-6)
    assert set(np.unique(last)) == set(range(10))  # every row begins a rollout


def test_recorded_actions_are_those_of_one_episode():
    data = toy()
    (observations, _), actions = recorded(np.random.default_rng(0), data, 1, 3, (300,))
    first = observations[:, -1, 0].astype(int)
    assert set(np.unique(first)) == {*range(7), 7}  # of the episode without a terminal only what fits
    last = np.where(first >= 7, 9, 6)
    expected = np.minimum(first[:, None] + np.arange(3), last[:, None]) / 100
    np.testing.assert_allclose(actions[..., 0], expected, rtol=1e-6)
    with pytest.raises(UserError, match="no episode has 50 steps or a terminal"):
        recorded(np.random.default_rng(0), toy(terminated=(False, False)), 1, 50, (3,))


def test_imagined_experience_counts_what_a_diffuser_would():
    model, agents = counter(), jnp.array([0.25, 0.5])
    counts = jnp.array([0.0, 4.0, 3.0])
    observations = jnp.stack([counts, jnp.zeros(3)], axis=-1)[None, :, None].repeat(2, axis=0)
    made = imagine(
        jax.random.key(0),
        model,
        jnp.float32(1.0),
        NOISY,
        Noisy(agents, jnp.zeros(2)),
        (np.asarray(observations), np.zeros((2, 3, 0, 1), np.float32)),
        length=4,
        batch=2,  # two programs' worth of rollouts: the second is filled up and cut
    )
    assert made.observation.shape == (2, 3, 4, 2)
    np.testing.assert_array_equal(made.valid.sum(-1), [[3, 1, 2]] * 2)  # whole ones lose their last step
    np.testing.assert_array_equal(made.terminal.sum(-1), [[0, 1, 1]] * 2)
    np.testing.assert_array_equal(made.action[:, :, 0, 0], [[0.25] * 3, [0.5] * 3])  # each its own policy
    moved, cuts = to_transitions(Experience(*(f[0] for f in made)))
    np.testing.assert_array_equal(moved.observation[:, 0], [0, 1, 2, 4, 3, 4])
    np.testing.assert_array_equal(moved.next_observation[:, 0][[0, 1, 2, 4]], [1, 2, 3, 4])
    np.testing.assert_array_equal(cuts, [False, False, True, False, False, False])


def test_rings_are_refilled_with_live_steps_and_compile_once():
    model, config = counter(), RolloutConfig(length=4, batch=3, every=1, capacity=24)
    agents, rings = jnp.array([0.25, 0.5]), empty_rings(config, 2, 2 * 2 + 1 + 2)
    counts = np.array([0.0, 4.0, 3.0], np.float32)
    observations = np.stack([counts, np.zeros(3, np.float32)], axis=-1)[None, :, None].repeat(2, axis=0)
    start = observations, np.zeros((2, 3, 0, 1), np.float32)
    for i in range(4):
        rings = refill(jax.random.key(i), model, jnp.float32(1.0), DRAWN, agents, rings, start, config)
        np.testing.assert_array_equal(rings.size, np.minimum(7 * (i + 1), 24) * np.ones(2))
    assert _refill_program(model, DRAWN, config.length, None)._cache_size() == 1
    rows = unpack(rings.rows[1], 2, 1)
    np.testing.assert_array_equal(np.unique(rows.action), [0.5])
    # In every push 7 steps: counts 0 1 2 3, 4, 3 4; terminal where the count reaches 5.
    np.testing.assert_array_equal(rows.terminal, rows.next_observation[:, 0] >= LIMIT)
    assert (rows.next_observation[:, 0] == rows.observation[:, 0] + 1).all()


def test_new_weights_compile_nothing():
    model = counter()
    program = rollout_program(model, MEAN, 3)
    assert program is rollout_program(counter(), mean_policy(_act), 3)
    observations, actions = (x[None] for x in histories((0.0, 1.0)))
    for weight in (1.0, 2.0):
        agents, keys = jnp.array([weight / 4]), jax.random.split(jax.random.key(0), 1)
        program(keys, jnp.float32(weight), agents, observations, actions)
    assert program._cache_size() == 1


@pytest.mark.parametrize("wrong", [{"length": 0}, {"batch": 0}, {"real_share": 1.5}, {"length": 26}])
def test_settings_that_make_no_rollouts_are_refused(wrong):
    with pytest.raises(UserError, match="rollouts"):
        RolloutConfig(**wrong)
