"""A latent stays for a chunk, and the decoder makes actions of it; what a step costs; what learns of what."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from policy_batches import GOALS, ROWS, TINY, offsets_of, programs, segments, shaken

from jdp.data.segments import FAR
from jdp.learning import tokenizers
from jdp.networks import recurrent
from jdp.policies import make, rdp

CONFIG = TINY["rdp"]


@jax.jit
def decode(state, latent, channel):
    return tokenizers.decode(state.actor.ema, state.latents.inverse(latent), channel, CONFIG.tokenizer, 2)


def played(act, state, policy, ticks):
    """Observations, actions and carries of `ticks` steps in 5 environments."""
    seen = np.random.default_rng(0).normal(size=(ticks, 5, 3)).astype(np.float32)
    carry, carries, emitted = policy.init(seen[0]), [], []
    for t in range(ticks):
        carry, decision = act(jax.random.key(t), state, carry, seen[t], np.ones((5, 2), np.float32))
        assert (np.asarray(decision.decided) == (t % CONFIG.execute == 0)).all()
        carries.append(carry)
        emitted.append(np.asarray(decision.action))
    return seen, np.stack(emitted, axis=1), carries


def test_in_closed_loop_actions_are_those_that_the_tokenizer_decodes():
    """Of one latent a chunk, drawn at its first step, along the channel since then."""
    method, state, _, act = programs("rdp")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    seen, actions, carries = played(act, state, method.policy, 6)
    scale = jax.tree.map(np.asarray, state.standardise)
    channel = ((seen - scale.mean) / scale.std)[..., 2:].swapaxes(0, 1)
    for begun in (0, 3):
        latents = [np.asarray(carry.chunk.queue) for carry in carries[begun : begun + 3]]
        assert all((z == latents[0][:, :1]).all() for z in latents)  # one for all steps
        wanted = decode(state, latents[0][:, 0], channel[:, begun : begun + 3])
        np.testing.assert_allclose(actions[:, begun : begun + 3], np.clip(wanted, -1, 1), atol=1e-5)
    assert np.abs(carries[0].chunk.queue - carries[3].chunk.queue).min() > 1e-4


def test_between_chunks_a_step_is_one_of_the_decoder_and_no_call_of_the_denoiser(monkeypatch):
    calls, own, step = [], rdp.denoiser, recurrent._step

    def denoiser(*args):
        def denoise(x, sigma):
            jax.debug.callback(lambda: calls.append("denoiser"))
            return own(*args)(x, sigma)

        return denoise

    def noted(*args, **settings):
        jax.debug.callback(lambda: calls.append("decoder"))
        return step(*args, **settings)

    monkeypatch.setattr(rdp, "denoiser", denoiser)
    monkeypatch.setattr(recurrent, "_step", noted)
    policy, state = make(replace(CONFIG, sampling_steps=4), GOALS).policy, programs("rdp").state
    spent, act, carry = [], jax.jit(policy.act), policy.init(jnp.ones((5, 3)))
    for t in range(7):
        calls.clear()
        carry, _ = act(jax.random.key(t), state, carry, jnp.ones((5, 3)), jnp.ones((5, 2)))
        jax.effects_barrier()
        spent.append((calls.count("denoiser"), calls.count("decoder")))
    assert spent == [(4, 1), (0, 1), (0, 1)] * 2 + [(4, 1)]


def test_the_two_stages_learn_apart():
    """The tokenizer as it would beside any denoiser; the denoiser nothing of rows that are not imitated."""
    method, state, update, _ = programs("rdp")
    batch, before = segments(0, offsets_of(method)), state.actor.params
    after = update(jax.random.key(0), state, batch)[0].actor.params
    other = state._replace(
        actor=state.actor._replace(params={**before, "denoiser": shaken(before["denoiser"])})
    )
    beside = update(jax.random.key(0), other, batch)[0].actor.params
    for part in ("encoder", "decoder"):
        for one, two, old in zip(
            *map(jax.tree.leaves, (after[part], beside[part], before[part])), strict=True
        ):
            np.testing.assert_array_equal(one, two)
            assert not np.array_equal(one, old)
    far = batch._replace(distance=np.full(ROWS, FAR, np.int32))
    after = update(jax.random.key(0), state, far)[0].actor.params
    for one, old in zip(*map(jax.tree.leaves, (after["denoiser"], before["denoiser"])), strict=True):
        np.testing.assert_array_equal(one, old)
    assert not np.array_equal(*(jax.tree.leaves(p["encoder"])[0] for p in (after, before)))


def test_what_is_denoised_is_the_standardised_latent_of_the_averaged_encoder():
    """The first update moves the statistics by nine tenths from N(0, 1) to those of the batch."""
    method, state, update, _ = programs("rdp")
    batch = segments(0, offsets_of(method))
    after = update(jax.random.key(0), state, batch)[0]
    mean, _ = tokenizers.posterior(state.actor.ema, jnp.asarray(batch.action), CONFIG.tokenizer)
    first = 0.9 * np.mean(mean, axis=0)
    second = 0.1 + 0.9 * np.mean(np.square(mean), axis=0)
    np.testing.assert_allclose(after.latents.mean, first, rtol=1e-4)
    np.testing.assert_allclose(after.latents.std, np.sqrt(second - first**2), rtol=1e-4)
