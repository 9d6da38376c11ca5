"""Compares a run with an earlier one and finds what became slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from measure import OURS

Run = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """Our time now / then on one case: above 1 is slower."""

    case: str
    before_us: float
    now_us: float

    @property
    def ratio(self) -> float:
        """Time now / time then."""
        return self.now_us / self.before_us


def our_times(run: Run) -> dict[str, float]:
    """Return our median microseconds by case and threads, of the rows that were timed."""
    rows = [row for row in run["rows"] if row["candidate"] == OURS and row["median_us"]]
    return {f"{row['case']}, {row['threads']} threads": row["median_us"] for row in rows}


def changes(base: Run, now: Run) -> list[Change]:
    """Return the change of each case that both runs timed.

    Raises:
        ValueError: they share no case, so comparing says nothing.
    """
    before, after = our_times(base), our_times(now)
    shared = [case for case in after if case in before]
    if not shared:
        raise ValueError(f"compare: no case in common; base has {list(before)}, now {list(after)}")
    return [Change(case, before[case], after[case]) for case in shared]


def regressions(found: list[Change], threshold: float) -> list[Change]:
    """Return the changes whose time grew by more than ``threshold`` times."""
    return [change for change in found if change.ratio > threshold]


def differences(base: Run, now: Run) -> list[str]:
    """Return what differs in the circumstances, so that times may differ for other reasons."""
    keys = ("processor", "threads", "isa", "torch", "caps")
    pairs = [(key, base["machine"].get(key), now["machine"].get(key)) for key in keys]
    return [f"{key}: {then} -> {here}" for key, then, here in pairs if then != here]
