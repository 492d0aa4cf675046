"""The noise of real runs: golmant_fig1_classification and golmant_arm_base, in the programme's first and third run.

Each run has its own rates and 5 to 20 seeds a batch size; the variances are pooled (99 and 96 degrees of freedom). It
is larger than what the programme was planned with (tests/helpers/power.py), and at large batches larger than what the
first run alone showed (0.12; the third 0.18). Log S over seeds scatters by 0.03 to 0.23 at the isotonic hit; two pools
of batch sizes say it within what so few seeds can tell.
"""

import math

import numpy as np

POOLS = (64, 128)  # batch sizes up to the one, and from the other on; between them by straight lines in log batch
SCATTER = (0.16, 0.15)  # of log S over seeds
PAIRED = (0.175, 0.075)  # of log S(validation)/S(training) of one run
LINE = (0.015, (0.09, 0.05))  # log S by the local line less the isotonic one, in one run: mean, deviation
FIRST = ((-0.21, -0.04), (0.20, 0.08))  # the same of the first crossing
TEST_POINTS = 0.85  # of a test accuracy at a target
EQUAL_UPDATES_POINTS = 0.55  # after as many updates
FULL_BATCH_POINTS = {"SGD": 9.0}  # after 35 steps at the full batch; 1.0 with LARS and LAMB
OTHER_FULL_BATCH_POINTS = 1.0
LINEAR_ERROR = 0.5  # of the log of the linear approximation's error


def at(size: float, pools: tuple[float, float]) -> float:
    """Return what the pools say of a batch size."""
    return float(np.interp(math.log(size), np.log(POOLS), pools))
