"""How the range of an activation is chosen from calibration data: one method per file.

========================  ==========================================================
``min_max``               everything that was seen
``moving_average``        the bounds of the batches, averaged with weights that decay
``percentile``            all but the outermost values of either side
``entropy``               least Kullback-Leibler divergence of the codes
``mse``                   least squared error
========================  ==========================================================
"""

from . import entropy, min_max, moving_average, mse, percentile
from .base import OBSERVERS, Observer, observer
from .histogram import Histogram

__all__ = [
    "OBSERVERS",
    "Histogram",
    "Observer",
    "entropy",
    "min_max",
    "moving_average",
    "mse",
    "observer",
    "percentile",
]
