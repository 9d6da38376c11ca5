"""Which weights are kept or removed together: one pattern per file, in one table.

=================  ================================================================
``unstructured``   each weight by itself
``N:M``            N of every M consecutive inputs of an output
``N:MxT``          the same, one choice for T consecutive outputs
``block:RxC``      blocks of R outputs by C inputs
=================  ================================================================

A convolution's weight counts as ``[OC, KH * KW * C / groups]`` with channels innermost.
"""

from . import block, n_m, unstructured
from .base import PATTERNS, Pattern, pattern, pattern_of
from .units import Units

__all__ = [
    "PATTERNS",
    "Pattern",
    "Units",
    "block",
    "n_m",
    "pattern",
    "pattern_of",
    "unstructured",
]
