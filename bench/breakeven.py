"""Where sparse weights begin to pay: the share of zeros above which they beat dense ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from case import Call
from rich.table import Table

from pyops.testing.timing import interleave, ratio

# Shares of zeros that are timed.
GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Question:
    """One line of the table.

    ``sparse(share)`` prepares the call on a weight of that share of zeros; ``dense`` are the calls
    that multiply by all of it, by the name of their column.
    """

    label: str
    sparse: Callable[[float], Call]
    dense: dict[str, Call]


def crossing(shares: Sequence[float], gains: Sequence[float]) -> float | None:
    """Return where ``gains``, dense time / sparse time at ``shares``, come to 1 for good.

    Between two shares by a straight line; 0 where the first is above 1, None where the last is not.
    """
    if gains[-1] < 1:
        return None
    below = [i for i, gain in enumerate(gains) if gain < 1]
    if not below:
        return 0.0
    at = below[-1]
    part = (1 - gains[at]) / (gains[at + 1] - gains[at])
    return shares[at] + part * (shares[at + 1] - shares[at])


def answer(question: Question, seconds: float) -> dict[str, float | None]:
    """Return the break-even against each dense call, timed over the grid."""
    gains: dict[str, list[float]] = {name: [] for name in question.dense}
    for share in GRID:
        calls = {"sparse": question.sparse(share), **question.dense}
        times = interleave(calls, seconds=seconds)
        for name in question.dense:
            gains[name].append(ratio(times[name], times["sparse"]))
    return {name: crossing(GRID, own) for name, own in gains.items()}


def table_of(questions: Iterable[Question], seconds: float) -> Table:
    """Return the answers; ``seconds`` for each share of zeros and all calls."""
    table: Table | None = None
    for question in questions:
        found = answer(question, seconds)
        if table is None:
            table = Table(title="zeros above which the sparse product is the faster one")
            table.add_column("case", no_wrap=True)
            for name in found:
                table.add_column(f"over {name}", justify="right")
        table.add_row(question.label, *map(_cell, found.values()))
    assert table is not None
    return table


def _cell(share: float | None) -> str:
    if share is None:
        return f"above {GRID[-1]:.0%}"
    return f"below {GRID[0]:.0%}" if share == 0 else f"{share:.0%}"


def show(bench: Any, shapes: str, seconds: float, console: Any) -> int:
    """Print the table of ``bench`` and return the exit status.

    Raises:
        ValueError: the bench asks no such questions.
    """
    if not hasattr(bench, "questions"):
        raise ValueError("--breakeven is for benches with sparse weights, such as sparse_gemm")
    console.print(table_of(bench.questions(shapes), seconds / len(GRID)))
    return 0
