"""Where gains cross 1."""

from __future__ import annotations

import time
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("gains", "where"),
    [
        ([0.5, 1.5, 2.0], 0.2),
        ([1.1, 1.2, 1.3], 0.0),
        ([0.5, 0.6, 0.9], None),
        ([1.2, 0.9, 1.1], 0.4),  # for good: what came before was luck
        ([0.5, 1.0, 2.0], 0.3),
    ],
)
def test_crossing(load: Any, gains: list[float], where: float | None) -> None:
    found = load("breakeven").crossing([0.1, 0.3, 0.5], gains)
    assert found == (where if where is None else pytest.approx(where))


def test_calls_are_timed(load: Any) -> None:
    """Sparse calls of a quarter more than their share of the dense time cross at a quarter."""
    full = 0.004
    module = load("breakeven")
    question = module.Question(
        "a question",
        lambda share: lambda: time.sleep(full * (1.25 - share)),
        {"dense": lambda: time.sleep(full)},
    )
    found = module.answer(question, 0.1)["dense"]
    assert found is not None
    assert module.GRID[0] < found < 0.6


def test_a_bench_without_sparse_weights_is_refused(load: Any) -> None:
    with pytest.raises(ValueError, match=r"^--breakeven is for benches with sparse weights"):
        load("breakeven").show(object(), "tiny", 1.0, None)
