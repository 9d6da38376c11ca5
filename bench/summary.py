"""One line per kind of case and set of rivals: ours against the fastest rival of each case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from measure import OURS, Row

Rivals = Mapping[str, tuple[str, ...]]
EVERYBODY = "all peers"


@dataclass(frozen=True)
class Line:
    """``ratios``: per case, the fastest rival's time / ours. ``absent``: rivals never timed."""

    kind: str
    label: str
    rivals: tuple[str, ...]
    absent: tuple[str, ...]
    ratios: dict[str, float]

    @property
    def geomean(self) -> float:
        """Geometric mean of the ratios."""
        return math.exp(sum(map(math.log, self.ratios.values())) / len(self.ratios))

    @property
    def least(self) -> str:
        """The case with the smallest ratio."""
        return min(self.ratios, key=self.ratios.__getitem__)

    def __str__(self) -> str:
        absent = f" (not timed: {', '.join(self.absent)})" if self.absent else ""
        where = self.least.rpartition(" ")[2]
        return (
            f"{self.kind}: geomean {self.geomean:.2f}x, least {self.ratios[self.least]:.2f}x at "
            f"{where}, over {len(self.ratios)} shapes, against the best of {self.label}: "
            f"{', '.join(self.rivals)}{absent}"
        )


def kind_of(case: str) -> str:
    """Return the name of a case without its shape."""
    return case.rpartition(" ")[0]


def summarize(rows: list[Row], rivals: Mapping[str, Rivals]) -> list[Line]:
    """Return the lines of every kind of case in ``rows``.

    ``rivals`` holds the sets of each kind; all peers together are one set more, where they differ.
    """
    lines = []
    for kind in dict.fromkeys(kind_of(row.case) for row in rows):
        mine = [row for row in rows if kind_of(row.case) == kind]
        peers = tuple(dict.fromkeys(row.candidate for row in mine if not row.mine))
        sets = dict(rivals.get(kind, {}))
        if set(peers) not in [set(names) for names in sets.values()]:
            sets[EVERYBODY] = peers
        for label, names in sets.items():
            if line := line_of(kind, label, names, mine):
                lines.append(line)
    return lines


def line_of(kind: str, label: str, names: tuple[str, ...], rows: list[Row]) -> Line | None:
    """Return the line against ``names``, None where none of them was timed."""
    ratios: dict[str, float] = {}
    timed = [row for row in rows if row.candidate in names and row.ours_faster is not None]
    for row in timed:
        assert row.ours_faster is not None
        ratios[row.case] = min(ratios.get(row.case, math.inf), row.ours_faster)
    if not ratios:
        return None
    seen = {row.candidate for row in timed}
    present = tuple(name for name in names if name in seen)
    return Line(kind, label, present, tuple(n for n in names if n not in seen), ratios)


def shares(rows: list[Row]) -> list[str]:
    """Return one line per kind whose share of the peak was measured: mean, least and where."""
    lines = []
    for kind in dict.fromkeys(kind_of(row.case) for row in rows):
        found = {
            row.case: row.peak_share
            for row in rows
            if kind_of(row.case) == kind and row.candidate == OURS and row.peak_share is not None
        }
        if found:
            worst = min(found, key=found.__getitem__)
            best = max(found, key=found.__getitem__)
            lines.append(
                f"{kind}: {found[best]:.0%} of the measured peak at {best.rpartition(' ')[2]}, "
                f"least {found[worst]:.0%} at {worst.rpartition(' ')[2]}"
            )
    return lines
