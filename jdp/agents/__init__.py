"""Offline-RL algorithms, one a file, each as an `Agent` of three pure functions."""

from typing import Any

from jdp.agents.awac import AWACConfig, awac
from jdp.agents.bc import BCConfig, bc
from jdp.agents.combo import COMBO_SETTINGS, COMBOConfig, combo
from jdp.agents.cql import CQLConfig, cql
from jdp.agents.edac import EDAC_SETTINGS, EDACConfig, edac
from jdp.agents.iql import IQLConfig, IQLState, iql, iql_reward_scale
from jdp.agents.mopo import MOPO_SETTINGS, MOPOConfig, mopo
from jdp.agents.morel import MOReLConfig, morel
from jdp.agents.rebrac import REBRAC_BETAS, ReBRACConfig, rebrac
from jdp.agents.sac import SACConfig, SACState, sac
from jdp.agents.sac_n import SAC_N_CRITICS, SACNConfig, sac_n
from jdp.agents.td3 import TD3State
from jdp.agents.td3_bc import TD3BCConfig, td3_bc
from jdp.errors import UserError
from jdp.types import Agent, ModelBased, Spec, WorldModel

__all__ = [
    "AGENTS",
    "COMBO_SETTINGS",
    "EDAC_SETTINGS",
    "MODEL_BASED",
    "MODEL_FREE",
    "MOPO_SETTINGS",
    "REBRAC_BETAS",
    "SAC_N_CRITICS",
    "AWACConfig",
    "BCConfig",
    "COMBOConfig",
    "CQLConfig",
    "EDACConfig",
    "IQLConfig",
    "IQLState",
    "MOPOConfig",
    "MOReLConfig",
    "ReBRACConfig",
    "SACConfig",
    "SACNConfig",
    "SACState",
    "TD3BCConfig",
    "TD3State",
    "awac",
    "bc",
    "combo",
    "cql",
    "edac",
    "iql",
    "iql_reward_scale",
    "make",
    "make_model_based",
    "mopo",
    "morel",
    "rebrac",
    "sac",
    "sac_n",
    "td3_bc",
]

MODEL_FREE: dict[str, type] = {
    "bc": BCConfig,
    "td3_bc": TD3BCConfig,
    "rebrac": ReBRACConfig,
    "iql": IQLConfig,
    "awac": AWACConfig,
    "cql": CQLConfig,
    "sac_n": SACNConfig,
    "edac": EDACConfig,
}
MODEL_BASED: dict[str, type] = {"mopo": MOPOConfig, "morel": MOReLConfig, "combo": COMBOConfig}
AGENTS = MODEL_FREE | MODEL_BASED  # the config of every algorithm, by name

_FACTORIES: dict[str, Any] = {
    "bc": bc,
    "td3_bc": td3_bc,
    "rebrac": rebrac,
    "iql": iql,
    "awac": awac,
    "cql": cql,
    "sac_n": sac_n,
    "edac": edac,
    "mopo": mopo,
    "morel": morel,
    "combo": combo,
}


def _factory(config: Any, kinds: dict[str, type]) -> Any:
    for name, kind in kinds.items():
        if type(config) is kind:
            return _FACTORIES[name]
    known = ", ".join(kind.__name__ for kind in kinds.values())
    raise UserError(f"no agent is made from a {type(config).__name__}; give one of {known}")


def make(config: Any, spec: Spec) -> Agent:
    """The model-free agent that the type of `config` names, one of `MODEL_FREE`.

    Raises:
        UserError: if no such algorithm has this type of config.
    """
    return _factory(config, MODEL_FREE)(config, spec)


def make_model_based(config: Any, spec: Spec, model: WorldModel) -> ModelBased:
    """The agent that learns from rollouts of `model`, one of `MODEL_BASED`.

    Raises:
        UserError: if no such algorithm has this type of config, or it needs an ensemble.
    """
    return _factory(config, MODEL_BASED)(config, spec, model)
