"""Draws how many times faster ours is than each peer; matplotlib is optional."""

from __future__ import annotations

from pathlib import Path

from measure import OURS, Row

from pyops.demo.plot import pyplot


def plot(rows: list[Row], title: str, file: Path) -> None:
    """Write a bar chart: a group per case, a bar per peer; without peers our GOP/s.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    plt = pyplot()
    timed = [row for row in rows if row.median_us is not None]
    peers = list(dict.fromkeys(row.candidate for row in timed if row.candidate != OURS))
    cases = list(dict.fromkeys(row.case for row in timed))
    figure, axes = plt.subplots(figsize=(max(6.0, 0.7 * len(cases)), 5))
    for index, name in enumerate(peers or [OURS]):
        width = 0.8 / max(1, len(peers))
        found = {row.case: row for row in timed if row.candidate == name}
        values = {case: r.ours_faster if peers else r.gops for case, r in found.items()}
        places = [place + index * width for place, case in enumerate(cases) if case in values]
        axes.bar(places, list(values.values()), width, label=name)
    axes.set_xticks(range(len(cases)))
    axes.set_xticklabels(cases, rotation=70, fontsize=7, ha="right")
    axes.set_ylabel("ours is this many times faster" if peers else "GOP/s")
    if peers:
        axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
