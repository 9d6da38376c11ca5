"""Which channels leave together: a set of equations between single channels, solved at the end.

Each channel of each layer's input and output is an atom. A walk over the graph says which atoms are
the same channel (``tie``) and which must stay (``keep``); connected atoms are one unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Ids = np.ndarray[Any, np.dtype[np.int64]]


class Atoms:
    """Numbers from 0, the pairs of them that are one channel, and those that stay."""

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[Ids, Ids]] = []
        self._kept: list[tuple[Ids, str]] = []

    def new(self, count: int) -> Ids:
        """``count`` atoms that nothing is known of."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def tie(self, one: Ids, other: Ids) -> None:
        """Each atom of ``one`` is the same channel as that of ``other`` in its place."""
        if one.shape != other.shape:
            raise AssertionError(f"{len(one)} channels are tied to {len(other)}")
        self._pairs.append((one, other))

    def keep(self, atoms: Ids, reason: str) -> None:
        """These channels, and all that are tied to them, cannot leave."""
        self._kept.append((atoms, reason))

    def solve(self) -> tuple[Ids, dict[int, str]]:
        """(the unit of each atom, named by its smallest; why a unit stays, the first reason)."""
        unit = np.arange(self._count)
        none = np.empty(0, np.int64)
        left = np.concatenate([none, *(one for one, _ in self._pairs)])
        right = np.concatenate([none, *(other for _, other in self._pairs)])
        while not np.array_equal(unit[left], unit[right]):
            # Each unit takes the smallest name next to it; chains of names are then cut short.
            low = np.minimum(unit[left], unit[right])
            np.minimum.at(unit, unit[left], low)
            np.minimum.at(unit, unit[right], low)
            while not np.array_equal(unit, unit[unit]):
                unit = unit[unit]
        reasons: dict[int, str] = {}
        for atoms, reason in self._kept:
            for name in np.unique(unit[atoms]).tolist():
                reasons.setdefault(name, reason)
        return unit, reasons
