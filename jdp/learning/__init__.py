"""What every learner shares: optimiser steps, averages, targets, critics, actors."""

from jdp.learning.diffuser import DiffuserConfig, TrainedDiffuser, trajectory_diffuser

__all__ = ["DiffuserConfig", "TrainedDiffuser", "trajectory_diffuser"]
