"""Times several calls against each other, interleaved, so that a slow moment hits all of them.

In each round every candidate runs a short burst; rounds start with another candidate each time.
The first call of a burst is not counted (caches are warm for the rest: what is measured is a model
that runs again and again). Ratios are taken within a round and their median is reported, so that
a change of clock speed during the run cancels.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

Call = Callable[[], object]
BURST_SECONDS = 0.004
MOST_CALLS = 64
FEWEST_ROUNDS = 5
SLOW_CALL_SECONDS = 0.02


@dataclass
class Timing:
    """Seconds of each counted call, by round."""

    rounds: list[list[float]] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Return the ``percent``-th percentile of all calls in seconds (nearest rank)."""
        calls = sorted(seconds for burst in self.rounds for seconds in burst)
        return calls[min(len(calls) - 1, int(len(calls) * percent / 100))]

    @property
    def median(self) -> float:
        """Median of all calls in seconds."""
        return self.percentile(50)

    def per_round(self) -> list[float]:
        """Return the median seconds of each round."""
        return [statistics.median(burst) for burst in self.rounds]


def ratio(base: Timing, other: Timing) -> float:
    """Return how many times faster ``other`` is: the median over the rounds of base / other."""
    pairs = zip(base.per_round(), other.per_round(), strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def interleave(candidates: Mapping[str, Call], *, seconds: float) -> dict[str, Timing]:
    """Time ``candidates`` against each other for about ``seconds`` in all.

    At least ``FEWEST_ROUNDS`` rounds run, whatever ``seconds`` says.

    Raises:
        ValueError: there is no candidate or ``seconds`` is not positive.
    """
    if not candidates or seconds <= 0:
        raise ValueError(
            f"interleave: wants candidates and seconds > 0, got {list(candidates)} and {seconds}"
        )
    plans = {name: _plan(call) for name, call in candidates.items()}
    timings = {name: Timing() for name in candidates}
    names = list(candidates)
    end = time.perf_counter() + seconds
    with _no_collection():
        done = 0
        while done < FEWEST_ROUNDS or time.perf_counter() < end:
            for name in names[done % len(names) :] + names[: done % len(names)]:
                timings[name].rounds.append(_burst(candidates[name], *plans[name]))
            done += 1
    return timings


def _plan(call: Call) -> tuple[int, bool]:
    """Return how many calls a burst counts, and whether one more goes before them."""
    call()
    estimate = min(_burst(call, 2, True))
    calls = max(1, min(MOST_CALLS, int(BURST_SECONDS / max(estimate, 1e-9))))
    return calls, estimate < SLOW_CALL_SECONDS


def _burst(call: Call, calls: int, warm: bool) -> list[float]:
    if warm:
        call()
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
