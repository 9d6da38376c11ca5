"""The interleaved timer of the benches and of the demo."""

from __future__ import annotations

import gc
import itertools
import time

import pytest

from pyops.testing import timing as timing_module
from pyops.testing.timing import FEWEST_ROUNDS, Remote, Timing, interleave, ratio


def test_percentiles_and_ratio() -> None:
    slow = Timing([[4.0, 4.0, 9.0], [8.0, 8.0, 8.0], [6.0]])
    fast = Timing([[1.0, 1.0, 1.0], [4.0, 4.0, 4.0], [2.0]])
    assert slow.per_round() == [4.0, 8.0, 6.0]
    assert slow.median == 8.0
    assert slow.percentile(0) == 4.0
    assert slow.percentile(99) == 9.0
    # By round 4, 2 and 3 times: the median of the pairs, not the ratio of the medians.
    assert ratio(slow, fast) == 3.0
    with pytest.raises(ValueError, match="zip"):
        ratio(slow, Timing([[1.0]]))


def test_rounds_interleave_and_rotate() -> None:
    seen: list[str] = []

    def called(name: str) -> None:
        seen.append(name)
        time.sleep(0.03)  # slow enough for one call per burst

    timings = interleave({n: lambda n=n: called(n) for n in "abc"}, seconds=0.01)  # type: ignore[misc]
    assert {len(timing.rounds) for timing in timings.values()} == {FEWEST_ROUNDS}
    rounds = "".join(seen)[-3 * FEWEST_ROUNDS :]
    assert [rounds[start : start + 3] for start in range(0, len(rounds), 3)] == [
        "abc",
        "bca",
        "cab",
        "abc",
        "bca",
    ]


def test_measures_real_time_and_keeps_the_collector() -> None:
    timings = interleave({"a": lambda: time.sleep(0.001), "b": lambda: None}, seconds=0.05)
    assert timings["a"].median >= 0.001
    assert timings["b"].median < 0.001
    assert ratio(timings["a"], timings["b"]) > 1
    assert gc.isenabled()


def test_another_process_times_its_own_runs() -> None:
    ran: list[float] = []

    def run() -> float:
        ran.append(0.25)
        return ran[-1]

    remote = Remote(run, "what it wrote")
    assert remote() == "what it wrote"
    timings = interleave({"here": lambda: None, "there": remote}, seconds=0.02, runs=2)
    assert {seconds for burst in timings["there"].rounds for seconds in burst} == {0.25}
    assert timings["here"].median < 0.25
    assert len(ran) > 2


def test_runs_are_counted_and_as_long_as_asked() -> None:
    calls = {name: lambda: time.sleep(0.001) for name in "ab"}
    for timing in interleave(calls, seconds=0.01, runs=3).values():
        assert [sum(burst) >= 0.009 for burst in timing.rounds] == [True] * 3


def test_settled_bursts_sleep_then_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(timing_module.time, "sleep", slept.append)
    counted = [0]

    def call() -> None:
        counted[0] += 1

    timing = interleave({"a": call}, seconds=0.01, settle=True)["a"]
    assert slept == [timing_module.SETTLE_SECONDS] * FEWEST_ROUNDS
    assert counted[0] > 10 * sum(map(len, timing.rounds)), "warm-up calls are not counted"


def test_foreign_threads_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(timing_module.time, "sleep", lambda seconds: events.append("pause"))
    calls = {"ours": lambda: events.append("ours"), "alone": lambda: events.append("alone")}
    interleave(calls, seconds=0.001, foreign=["alone"])
    changes = [name for name, before in zip(events, ["", *events], strict=False) if name != before]
    assert changes.count("pause") == FEWEST_ROUNDS
    follows = [after for name, after in itertools.pairwise(changes) if name == "pause"]
    assert set(follows) == {"alone"}


@pytest.mark.parametrize(("names", "seconds", "runs"), [("", 1.0, 1), ("a", 0.0, 1), ("a", 1.0, 0)])
def test_bad_arguments(names: str, seconds: float, runs: int) -> None:
    with pytest.raises(ValueError, match="interleave: wants candidates, seconds > 0 and runs > 0,"):
        interleave({name: lambda: None for name in names}, seconds=seconds, runs=runs)
