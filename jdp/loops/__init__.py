"""Loops that train and play: typed, public, without files or a screen."""

from jdp.loops.check import check_guided, check_method, check_rule_on
from jdp.loops.chunks import StopWhen
from jdp.loops.clock import late, ticks_late
from jdp.loops.controller import seeded
from jdp.loops.dreams import dream_of
from jdp.loops.evaluation import play_in_turn, play_together
from jdp.loops.fit import block_program, chunk_program, fit, fit_blocks
from jdp.loops.journal import Journal, Memory, Progress, ProgressBar, training_seconds
from jdp.loops.latency import Latency, latency
from jdp.loops.model_based import train_model_based
from jdp.loops.online import online_learner, score_together, steps_of, steps_of_update, train_online
from jdp.loops.online_host import train_online_host
from jdp.loops.play import Environment, Played, play
from jdp.loops.recorder import Recorder
from jdp.loops.rounds import train_in_rounds
from jdp.loops.self_improvement import improve
from jdp.loops.train import INIT, continue_training, train, vmapped
from jdp.loops.world_models import make_world_model, termination_rule, train_diffuser, train_world_model

__all__ = [
    "INIT",
    "Environment",
    "Journal",
    "Latency",
    "Memory",
    "Played",
    "Progress",
    "ProgressBar",
    "Recorder",
    "StopWhen",
    "block_program",
    "check_guided",
    "check_method",
    "check_rule_on",
    "chunk_program",
    "continue_training",
    "dream_of",
    "fit",
    "fit_blocks",
    "improve",
    "late",
    "latency",
    "make_world_model",
    "online_learner",
    "play",
    "play_in_turn",
    "play_together",
    "score_together",
    "seeded",
    "steps_of",
    "steps_of_update",
    "termination_rule",
    "ticks_late",
    "train",
    "train_diffuser",
    "train_in_rounds",
    "train_model_based",
    "train_online",
    "train_online_host",
    "train_world_model",
    "training_seconds",
    "vmapped",
]
