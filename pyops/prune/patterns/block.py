"""block:RxC: rectangles of weights."""

from __future__ import annotations

import re

from .base import pattern
from .units import Units


@pattern("block:RxC", r"block:(\d+)x(\d+)")
class Block(Units):
    """Blocks of R consecutive outputs by C consecutive inputs, of which the last may be smaller.

    A block's score is the mean over its weights, so a smaller one is not worth less.
    """

    @classmethod
    def parse(cls, name: str, found: re.Match[str]) -> Block:
        """See ``Pattern``."""
        new = cls(name)
        new.rows, new.cols = (int(number) for number in found.groups())
        if min(new.rows, new.cols) < 1:
            raise ValueError("expected R and C of at least 1 in 'block:RxC'")
        return new
