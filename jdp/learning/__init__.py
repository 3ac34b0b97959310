"""What every learner shares: optimiser steps, averages, targets, critics, actors."""
