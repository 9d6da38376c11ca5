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
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")
BURST_SECONDS = 0.004
MOST_CALLS = 64
FEWEST_ROUNDS = 5
SLOW_CALL_SECONDS = 0.02
# Threads of another library spin on after its last call; a call of ours would wait for its CPU.
SETTLE_SECONDS = 0.03
WARM_SECONDS = 0.01
SETTLED_BURST_SECONDS = 0.04


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


@dataclass
class Remote(Generic[Result]):
    """A call that another process runs and times, so that the way there and back does not count.

    ``run`` returns the seconds; ``result`` is what each run writes anew.
    """

    run: Callable[[], float]
    result: Result
    seconds: float = 0.0

    def __call__(self) -> Result:
        """Run once, and keep the seconds."""
        self.seconds = self.run()
        return self.result


def ratio(base: Timing, other: Timing) -> float:
    """Return how many times faster ``other`` is: the median over the rounds of base / other."""
    pairs = zip(base.per_round(), other.per_round(), strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


@dataclass(frozen=True)
class Burst:
    """How one candidate runs in one round.

    It sleeps for ``settle`` seconds, runs for ``warm`` seconds and at least one call that is not
    counted (none where a call is slow), then counts ``calls`` calls, and more up to ``seconds``.
    """

    calls: int
    warm_call: bool = True
    seconds: float = 0.0
    settle: float = 0.0
    warm: float = 0.0

    def run(self, call: Call) -> list[float]:
        """Return the seconds of each counted call."""
        if self.settle:
            time.sleep(self.settle)
        begin = time.perf_counter()
        if self.warm_call:
            call()
            while time.perf_counter() - begin < self.warm:
                call()
        taken: list[float] = []
        begin = time.perf_counter()
        while len(taken) < self.calls or time.perf_counter() - begin < self.seconds:
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            taken.append(call.seconds if isinstance(call, Remote) else elapsed)
        return taken


def interleave(
    candidates: Mapping[Name, Call],
    *,
    seconds: float,
    runs: int | None = None,
    settle: bool = False,
    foreign: Collection[Name] = (),
) -> dict[Name, Timing]:
    """Time ``candidates`` against each other.

    Args:
        candidates: calls by name.
        seconds: in all, though at least ``FEWEST_ROUNDS`` rounds run; with ``runs``, for each
            candidate in each round.
        runs: the number of rounds; None as many as ``seconds`` allow.
        settle: some candidates have threads that stay awake, so let all fall asleep in between.
        foreign: candidates with other threads than the rest, which do not stay awake: these wait
            until those of the rest are asleep.

    Raises:
        ValueError: there is no candidate, or ``seconds`` or ``runs`` is not positive.
    """
    if not candidates or seconds <= 0 or (runs is not None and runs < 1):
        raise ValueError(
            f"interleave: wants candidates, seconds > 0 and runs > 0, got {list(candidates)}, "
            f"{seconds} and {runs}"
        )
    burst_seconds = None if runs is None else seconds
    plans = {name: _plan(call, burst_seconds, settle) for name, call in candidates.items()}
    for name in foreign:
        plans[name] = replace(plans[name], settle=SETTLE_SECONDS)
    timings: dict[Name, Timing] = {name: Timing() for name in candidates}
    names = list(candidates)
    end = time.perf_counter() + seconds
    with _no_collection():
        done = 0
        while done < (runs or FEWEST_ROUNDS) or (runs is None and time.perf_counter() < end):
            turn = done % len(names)
            for name in names[turn:] + names[:turn]:
                timings[name].rounds.append(plans[name].run(candidates[name]))
            done += 1
    return timings


def _plan(call: Call, seconds: float | None, settle: bool) -> Burst:
    """Return the burst for a call: of ``seconds``, or as short as its speed allows."""
    call()
    estimate = max(min(Burst(2).run(call)), 1e-9)
    pauses = (SETTLE_SECONDS, WARM_SECONDS) if settle else (0.0, 0.0)
    warm_call = settle or estimate < SLOW_CALL_SECONDS
    if seconds is not None:
        return Burst(1, warm_call, seconds, *pauses)
    length = SETTLED_BURST_SECONDS if settle else BURST_SECONDS
    return Burst(max(1, min(MOST_CALLS, int(length / estimate))), warm_call, 0.0, *pauses)


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
