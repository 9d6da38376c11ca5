"""The size rule for layers that nothing was timed for."""

from __future__ import annotations

import pytest

from pyops.quantize.break_even import why_not_worth_it


@pytest.mark.parametrize(
    ("k", "n", "wins"),
    [
        (64, 64, True),
        (47, 64, False),
        (64, 47, False),
        (768, 2, False),
        (1024, 10, False),
        (4096, 16, True),
        (4096, 15, False),
        (1, 1, False),
        (384, 1536, True),
    ],
)
def test_rule(k, n, wins):
    reason = why_not_worth_it(k, n)
    assert (reason is None) == wins
    if reason:
        assert reason == (
            f"too small to be faster in int8: {k} x {n} weights, break-even is 64 x 64 "
            "(include= converts it at any size)"
        )
