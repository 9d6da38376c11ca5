"""An edge: the codes that one step makes and others read."""

from __future__ import annotations

from typing import NamedTuple

import torch

LEVELS = 256


class Edge(NamedTuple):
    """``value = (code - zero_point) * scale``, codes uint8."""

    scale: float
    zero_point: int


def edge_of(low: float, high: float) -> Edge:
    """The edge for values between low and high; 0 is one of its values, exactly.

    A range that starts at 0 (behind a ReLU) has zero point 0. Codes are ``rne(value / scale) +
    zero_point``, scale is a float32.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Edge(1.0, 0)
    exact = torch.tensor((high - low) / (LEVELS - 1), dtype=torch.float32)
    scale = max(float(exact), torch.finfo(torch.float32).tiny)
    return Edge(scale, min(max(round(-low / scale), 0), LEVELS - 1))
