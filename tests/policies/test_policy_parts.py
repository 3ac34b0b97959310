"""What policies share: goals relabelled, conditions, choices by Q, chunks in closed loop, compilations."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, ROWS, SPEC, TINY, offsets_of, programs, segments, shaken

from jdp import UserError, registry
from jdp.data.normalise import Affine
from jdp.data.segments import FAR
from jdp.learning.candidates import choose
from jdp.learning.observations import observation_affine
from jdp.policies import actions, chunks, make, relabelled
from jdp.policies.beso import BESOConfig, denoiser, log_logistic, shown
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.dql import DQLConfig
from jdp.policies.fql import FQLConfig
from jdp.policies.idql import IDQLConfig


def test_goals_make_rewards_of_steps_to_go():
    batch = segments(0)._replace(distance=np.array([1, 2, 50, FAR] * 16, np.int32))
    reward, terminal = relabelled.relabelled(batch, GOALS, 3.0, 2.0)
    np.testing.assert_array_equal(reward, [0, -1, -1, -1] * 16)
    np.testing.assert_array_equal(terminal, [1, 0, 0, 0] * 16)
    np.testing.assert_array_equal(relabelled.imitated(batch, GOALS), [True, True, True, False] * 16)


def test_without_goals_rewards_are_the_datas():
    batch = segments(0, spec=SPEC)
    reward, terminal = relabelled.relabelled(batch, SPEC, 4.0, -2.0)
    np.testing.assert_allclose(reward, 4 * np.asarray(batch.reward[:, 0]) - 2, rtol=1e-6)
    np.testing.assert_array_equal(terminal, batch.terminal[:, 0])
    assert bool(relabelled.imitated(batch, SPEC).all())


def test_goals_are_standardised_as_the_entries_they_prescribe():
    """A goal that is the observation's own entries looks like them."""
    spec = GOALS.__class__(3, 2, goal=(2, 0))
    observation = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = relabelled.condition(
        Affine(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 3.0, 4.0])),
        observation,
        observation[:, jnp.array([2, 0])],
        spec,
    )
    np.testing.assert_allclose(found[:, 3:], found[:, jnp.array([2, 0])])
    np.testing.assert_allclose(found[1, :3], [1.5, 1.0, 0.75])


def test_goals_of_another_width_are_refused():
    batch = segments(0, spec=SPEC)
    with pytest.raises(UserError, match=r"spec\.goal"):
        relabelled.transitions(batch, observation_affine(batch.observation), GOALS, TINY["dql"])


def flat(found, q):
    """Candidates `[N, B, A]` and their values `[N, B]`, the candidates of a row side by side."""
    found, q = jnp.swapaxes(found, 0, 1), q.T
    return found.reshape(-1, found.shape[-1]), q.reshape(-1)


def test_the_best_candidate_is_selected():
    rng = np.random.default_rng(0)
    found = jnp.asarray(rng.normal(size=(5, 7, 2)), jnp.float32)
    q = jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)
    best = np.asarray(q).argmax(0)
    chosen, value = choose(*flat(found, q), 5)
    np.testing.assert_array_equal(chosen, np.asarray(found)[best, np.arange(7)])
    np.testing.assert_array_equal(value, np.asarray(q).max(axis=0))


def test_a_temperature_draws_from_the_softmax():
    q = jnp.broadcast_to(jnp.array([0.0, 1.0, 2.0])[:, None], (3, 20_000))
    which = jnp.broadcast_to(jnp.arange(3.0)[:, None, None], (3, 20_000, 1))
    chosen, _ = choose(*flat(which, q), 3, key=jax.random.key(0), temperature=0.5)
    chosen = np.asarray(chosen)
    wanted = np.exp([0.0, 2.0, 4.0]) / np.exp([0.0, 2.0, 4.0]).sum()
    np.testing.assert_allclose([(chosen == k).mean() for k in range(3)], wanted, atol=0.01)


def test_rows_that_are_not_imitated_cost_nothing():
    """The loss is the mean over the others, whatever the masked rows' actions are."""
    config = TINY["beso"]
    network = config.network()
    seen, x0 = jnp.ones((6, 3)), jax.random.uniform(jax.random.key(1), (6, 2))
    params = shaken(jax.jit(network.init)(jax.random.key(0), x0, jnp.zeros(6), seen))
    keep, sigma = jnp.array([True, True, False] * 2), jnp.linspace(0.1, 1.0, 6)

    @jax.jit
    def loss(x0, keep):
        return actions.imitation_loss(jax.random.key(2), params, seen, x0, sigma, keep, config)

    each = [float(loss(x0, jnp.arange(6) == i)) for i in range(6)]
    found = float(loss(jnp.where(keep[:, None], x0, 9.0), keep))
    assert found == pytest.approx(np.mean([each[i] for i in (0, 1, 3, 4)]), rel=1e-5)
    assert float(loss(x0, jnp.zeros(6, bool))) == 0.0


def test_a_flow_that_knows_nothing_leaves_the_noise_where_it_is():
    """Its network is 0 at first: the loss is that of the velocity `eps - x0`, and Euler stays where it is."""
    chosen = DiffusionPolicyConfig(formulation="flow", sampler="euler", sampling_steps=3)
    config, keys = replace(chosen, features=8, blocks=1), jax.random.split(jax.random.key(0), 3)

    @jax.jit
    def found(x0, noise):
        seen, sigma = jnp.ones((256, 3)), actions.levels(keys[0], 256, config)
        params = config.network().init(keys[1], x0, sigma, seen)
        loss = actions.imitation_loss(keys[2], params, seen, x0, sigma, jnp.ones(256, bool), config)
        levels, own = config.sampling().sigmas(), actions.denoiser(params, seen, config)
        return sigma, loss, config.sampling().function()(own, levels[0] * noise, levels)

    x0, noise = jnp.full((256, 2), 0.3), jax.random.normal(keys[2], (256, 2))
    sigma, loss, drawn = (np.asarray(x) for x in found(x0, noise))
    np.testing.assert_allclose(loss, np.mean(np.square(noise - x0)), rtol=1e-5)
    np.testing.assert_allclose(np.mean(sigma / (1 + sigma)), 0.5, atol=0.06)  # times are uniform
    inside = np.abs(noise) < 1  # others are clipped
    np.testing.assert_allclose(drawn[inside], 0.999 * noise[inside], atol=2e-4)


def test_levels_are_a_truncated_log_logistic():
    """Quantiles in closed form: cdf(sigma) = 1 / (1 + (median / sigma)^(1 / scale))."""
    config = TINY["beso"]
    found = np.sort(log_logistic(jax.random.key(0), 20_001, config))
    assert found[0] >= config.sigma_min * 0.999 and found[-1] <= config.sigma_max * 1.001

    def cdf(sigma):
        return 1 / (1 + (0.5 / sigma) ** 2)

    for share in (0.1, 0.5, 0.9):
        p = (cdf(found[int(share * 20_000)]) - cdf(0.005)) / (cdf(1.0) - cdf(0.005))
        assert p == pytest.approx(share, abs=0.012)


def test_guidance_one_is_conditional_and_zero_sees_no_goal():
    config = TINY["beso"]
    params = shaken(programs("beso").state.actor.params)
    x, sigma = jax.random.normal(jax.random.key(1), (4, 2)), jnp.full(4, 0.7)
    seen = jax.random.normal(jax.random.key(2), (4, 5))

    @jax.jit
    def denoised(seen):
        with_goal = shown(seen, jnp.ones(4, bool), GOALS)
        guided = [denoiser(params, seen, replace(config, guidance=w), GOALS) for w in (1.0, 0.0)]
        return [d(x, sigma) for d in (actions.denoiser(params, with_goal, config), *guided)]

    conditional, one, zero = denoised(seen)
    other = denoised(seen.at[:, 3:].add(1.0))
    np.testing.assert_allclose(one, conditional, atol=1e-5)
    assert np.abs(one - other[1]).max() > 1e-3
    np.testing.assert_array_equal(zero, other[2])


def test_a_chunk_is_executed_in_order_and_then_renewed():
    """The chunk made at t says t + .1 k; only its first three actions are executed, and 12 steps make 4."""
    config, calls = TINY["diffusion_policy"], []

    def sample(past):
        jax.debug.callback(lambda: calls.append(1))
        now = past.history[:, -1, :1]  # [B, 1]
        return (now[:, None] + 0.1 * jnp.arange(4.0)[None, :, None] + jnp.zeros((1, 1, 2))).reshape(2, -1)

    step = jax.jit(lambda carry, observation: chunks.step(carry, observation, sample))
    first = jnp.zeros((2, 3))
    carry = chunks.start(first, config=config, spec=SPEC)
    for t in range(12):
        carry, decision = step(carry, first + t)
        np.testing.assert_array_equal(decision.decided, t % 3 == 0)
        np.testing.assert_allclose(decision.action, np.full((2, 2), t // 3 * 3 + 0.1 * (t % 3)), rtol=1e-6)
        np.testing.assert_array_equal(carry.past.history[0, :, 0], [max(t - 1, 0), t])
    jax.effects_barrier()
    assert len(calls) == 4 and step._cache_size() == 1


def test_the_policy_emits_the_chunk_of_its_denoiser():
    config = TINY["diffusion_policy"]
    method, state, _, act = programs("diffusion_policy")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    observation, goal = jax.random.normal(jax.random.key(1), (3, 3)), jnp.ones((3, 2))
    carry, emitted = method.policy.init(observation), []
    for t in range(3):
        carry, decision = act(jax.random.key(t), state, carry, observation, goal)
        emitted.append(decision.action)
    twice = jnp.stack([observation, observation], axis=1)
    seen = chunks.condition(state.standardise, twice, goal, GOALS)
    sample = jax.jit(partial(config.sampling().draw, shape=(3, 8)))
    chunk = sample(jax.random.key(0), actions.denoiser(state.actor.ema, seen, config)).reshape(3, 4, 2)
    np.testing.assert_allclose(np.stack(emitted, axis=1), chunk[:, :3], atol=1e-5)


def test_the_chunk_begins_at_the_last_observation_of_the_history():
    config = TINY["diffusion_policy"]
    batch = segments(0, config.offsets(), SPEC)
    assert config.offsets() == (-1, 0, 1, 2, 3)
    seen, chunk = chunks.example(batch, observation_affine(batch.observation, enabled=False), config, SPEC)
    np.testing.assert_array_equal(seen, batch.observation[:, :2].reshape(ROWS, -1))
    np.testing.assert_array_equal(chunk, batch.action[:, 1:5].reshape(ROWS, -1))


@pytest.mark.parametrize("name", TINY)
def test_updates_and_actions_compile_once_and_stay_in_the_box(name):
    method, state, update, act = programs(name)
    assert method is make(TINY[name], GOALS)
    observation, goal = np.ones((1024, 3), np.float32), np.ones((1024, 2), np.float32)
    carry, metrics = method.policy.init(observation), {}
    for i in range(3):
        state, metrics = update(jax.random.key(i), state, segments(i, offsets_of(method)))
        carry, decision = act(jax.random.key(i), state, carry, observation, goal)
        assert np.abs(decision.action).max() <= 1
        assert all(leaf.shape[0] == 1024 for leaf in jax.tree.leaves((carry, decision)))
    assert all(np.isfinite(x) for x in metrics.values()) and {"loss", "bc_loss"} & set(metrics)
    assert update._cache_size() == 1


def tuned(policy, dataset, preset="paper"):
    presets = registry.entry("policy", policy).presets
    assert presets is not None
    return presets(registry.task_of(dataset, dataset))[preset]


def test_settings():
    assert set(registry.entries("policy")) == set(TINY)
    assert tuned("dql", "walker2d-medium-v2").settings == DQLConfig(eta=1.0, grad_norm=1.0)
    assert tuned("dql", "walker2d-medium-v2", "cpu").settings.candidates == 16
    wanted = FQLConfig(alpha=3000.0, target="min", normalise_q=False)
    assert tuned("fql", "pen-expert-v1").settings == wanted
    assert tuned("idql", "antmaze-umaze-v2").episodes == 100
    assert tuned("idql", "hopper-medium-v2").settings == IDQLConfig()
    assert make(TINY["fql"], SPEC).learner.draws.hindsight.anywhere == 0.3
    assert make(TINY["beso"], SPEC).learner.draws.hindsight.later == 1.0
    for name, config in TINY.items():
        assert isinstance(hash(make(config, SPEC).policy), int), name
    with pytest.raises(UserError, match="execute"):
        DiffusionPolicyConfig(chunk=4, execute=5)
    with pytest.raises(UserError, match="formulation is 'vp': choose one of edm, flow, vp_x0"):
        DiffusionPolicyConfig(formulation="vp")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="BESOConfig needs sampling_steps >= 2"):
        BESOConfig(sampling_steps=1)
    with pytest.raises(UserError, match="no policy 'dqn'"):
        registry.entry("policy", "dqn")
    with pytest.raises(UserError, match="no policy is made from a Spec"):
        make(SPEC, SPEC)


def test_one_row_is_reset_in_the_middle_of_its_chunk():
    """It begins a chunk at once; the other row, and a row that never saw the reset, go on as they were."""
    config = TINY["diffusion_policy"]

    def sample(past):
        now = past.history[:, -1, :1]
        return (now[:, None] + 0.1 * jnp.arange(4.0)[None, :, None] + jnp.zeros((1, 1, 2))).reshape(2, -1)

    step = jax.jit(lambda carry, observation: chunks.step(carry, observation, sample))
    start = partial(chunks.start, config=config, spec=SPEC)
    at = np.array([0.0, 100.0], np.float32)  # what the rows observe, one more at every step
    carry, made = start(jnp.zeros((2, 3)) + at[:, None]), np.zeros(2)
    for t in range(8):
        if t == 4:  # one step after a new chunk, the second row's episode ends and another begins at 500
            at[1] = 500.0
            again = start(jnp.zeros((2, 3)) + at[:, None])
            carry = jax.tree.map(lambda old, new: old.at[1].set(new[1]), carry, again)
        due = np.array([t % 3 == 0, t in (0, 3, 4, 7)])
        carry, decision = step(carry, jnp.zeros((2, 3)) + at[:, None])
        made = np.where(due, t, made)
        np.testing.assert_array_equal(decision.decided, due)
        chunk = at - (t - made) + 0.1 * (t - made)
        np.testing.assert_allclose(decision.action[:, 0], chunk, rtol=1e-6)
        at += 1
    assert step._cache_size() == 1


def test_rows_that_fill_up_a_batch_change_no_choice():
    found, q = jax.random.normal(jax.random.key(0), (5, 3, 2)), jax.random.normal(jax.random.key(1), (5, 3))
    more = [jnp.concatenate([x, x[:, -1:]], axis=1) for x in (found, q)]
    for i in range(20):
        for temperature in (0.0, 1.0):
            options = {"key": jax.random.key(i), "temperature": temperature}
            chosen, _ = choose(*flat(*more), 5, **options)
            alone, _ = choose(*flat(found, q), 5, **options)
            np.testing.assert_array_equal(chosen[:3], alone)
