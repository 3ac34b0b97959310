"""Offline to online: which agents go on from which, and with what networks."""

import pytest

from jdp.agents.cql import CQLConfig
from jdp.agents.iql import IQLConfig
from jdp.agents.sac_n import SACNConfig
from jdp.agents.td3_bc import TD3BCConfig
from jdp.errors import UserError
from jdp.online.continued import continued
from jdp.online.ppo import PPOAgentConfig
from jdp.online.sac import OnlineSACConfig
from jdp.online.td3 import OnlineTD3Config


def test_networks_are_those_of_the_offline_agent_and_the_rest_is_the_online_ones():
    own = OnlineSACConfig(discount=0.9, hidden=(8,))
    found = continued(own, SACNConfig(critics=7, hidden=(16, 16), discount=0.5, tau=0.5))
    assert (found.critics, found.hidden, found.initialiser) == (7, (16, 16), "edac")
    assert (found.discount, found.tau, found.acting) == (0.9, own.tau, own.acting)
    assert continued(own, CQLConfig()).normalise_observations
    found = continued(OnlineTD3Config(), TD3BCConfig(hidden=(4,)))
    assert found == OnlineTD3Config(hidden=(4,), normalise_observations=True)


def test_what_does_not_fit_is_one_line():
    with pytest.raises(UserError, match=r"--settings.hidden is \(8,\), the policy has \(4,\): leave it out"):
        continued(OnlineTD3Config(hidden=(8,)), TD3BCConfig(hidden=(4,)), {"hidden", "tau"})
    continued(OnlineTD3Config(hidden=(4,)), TD3BCConfig(hidden=(4,)), {"hidden"})
    for online, offline in (
        (OnlineSACConfig(), TD3BCConfig()),
        (OnlineTD3Config(), SACNConfig()),
        (OnlineSACConfig(), IQLConfig()),
        (PPOAgentConfig(), SACNConfig()),
    ):
        with pytest.raises(UserError, match="cannot go on from"):
            continued(online, offline)
