"""``int8_linear`` with 1 to 1024 rows of one layer: the time as a function of M, and its steps.

All sizes are timed in turn in every round, so that a slow moment of the machine is no step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from case import Case
from measure import OURS, Row

from pyops.demo.plot import pyplot

from .int8_gemm import linear

K, N = 768, 3072
# Around the tiles' rows (6, 12, 32) and the blocks' (96), and few of the rest.
MAIN = (
    *range(1, 19),
    *(m + d for m in (24, 32, 48, 64, 96, 128, 192, 256) for d in (-1, 0, 1)),
    *(20, 28, 40, 56, 80, 112, 160, 224, 320, 384, 385, 512, 513, 640, 768, 769, 1023, 1024),
)
ALL = (*range(1, 257), *range(264, 1025, 8))
SETS = {"main": sorted(MAIN), "all": ALL, "tiny": (1, 2, 7)}
TINY = (16, 24)
TOGETHER = True
# The bar: a call with more rows takes no less than this much of the one before.
STEP = 0.05


def cases(shapes: str) -> Iterator[Case]:
    """Yield a case per M of "main", "all" or "tiny".

    Raises:
        ValueError: there is no such set.
    """
    if shapes not in SETS:
        raise ValueError(f"int8_scaling has no shapes {shapes!r}; there are {', '.join(SETS)}")
    k, n = TINY if shapes == "tiny" else (K, N)
    for m in SETS[shapes]:
        case = linear(m, k, n)
        yield dataclasses.replace(case, name=f"int8_linear K{k} N{n} M={m}")


def rows_of(row: Row) -> int:
    """Return M of a row."""
    return int(row.case.rpartition("=")[2])


def times(rows: list[Row], candidate: str, column: str = "median_us") -> dict[int, float]:
    """Return microseconds by M of ``candidate``, in order of M."""
    found = {rows_of(r): getattr(r, column) for r in rows if r.candidate == candidate and r.gops}
    return dict(sorted(found.items()))


def conclude(rows: list[Row]) -> list[str]:
    """Return a line per step down: M, the M before it, and how much less time it takes.

    Where the 10th percentile steps up, the step of the median was the machine's.
    """
    ours, fast = times(rows, OURS), times(rows, OURS, "p10_us")
    lines = []
    for before, m in zip(ours, list(ours)[1:], strict=False):
        drop, fast_drop = (1 - us[m] / us[before] for us in (ours, fast))
        if drop > STEP:
            lines.append(
                f"step down at M={m}: {ours[m]:.1f} us, {drop:.0%} less than {ours[before]:.1f} us "
                f"at M={before} (10th percentiles: {fast_drop:.0%} less)"
            )
    return lines or [f"no step down of more than {STEP:.0%} from M={min(ours)} to M={max(ours)}"]


def plot(rows: list[Row], title: str, file: Path) -> None:
    """Draw microseconds per row over M, ours and each peer.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 5))
    for name in dict.fromkeys(row.candidate for row in rows):
        if found := times(rows, name):
            per_row = [us / m for m, us in found.items()]
            axes.plot(list(found), per_row, label=name, linewidth=2 if name == OURS else 1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("M")
    axes.set_ylabel("microseconds per row")
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
