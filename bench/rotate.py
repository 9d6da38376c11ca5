"""Calls that read another copy of their weight each time, so that no cache holds it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

from case import Call
from torch import Tensor

FEWEST_COPIES, MOST_COPIES = 4, 64
_FALLBACK_CACHE = 32 << 20


def cache_bytes() -> int:
    """Return the size of the last-level cache; 32 MiB where the system does not say."""
    try:
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (ValueError, OSError):
        size = 0
    return size if size > 0 else _FALLBACK_CACHE


def copies_of(weight: Tensor) -> list[Tensor]:
    """Return copies that together take three times the last-level cache, at least four."""
    size = max(1, weight.numel() * weight.element_size())
    count = min(MOST_COPIES, max(FEWEST_COPIES, -(-3 * cache_bytes() // size)))
    return [weight, *(weight.clone() for _ in range(count - 1))]


def rotate(weight: Tensor, call: Callable[[Tensor], Tensor]) -> Call:
    """Return a call that passes the next copy of ``weight`` to ``call`` each time."""
    copies = itertools.cycle(copies_of(weight))
    return lambda: call(next(copies))
