"""What a weight is worth: one criterion per file, in one table.

==============  ==================================================================
``l1``          its magnitude; of a unit, the mean
``l2``          its square; of a unit, the mean (the same order for single weights)
``random``      nothing: a random number
``gradient``    how much the loss would change: SNIP
``wanda``       magnitude times the norm of its input, within each output
``sparsegpt``   the error that its removal leaves, the others making up for it
==============  ==================================================================
"""

from . import gradient, l1, l2, random, sparsegpt, wanda
from .base import CRITERIA, Criterion, Work, criterion, criterion_of

__all__ = [
    "CRITERIA",
    "Criterion",
    "Work",
    "criterion",
    "criterion_of",
    "gradient",
    "l1",
    "l2",
    "random",
    "sparsegpt",
    "wanda",
]
