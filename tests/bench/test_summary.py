"""What the end of a run says: ours against the fastest rivals, and steps down over M."""

from __future__ import annotations

from typing import Any


def row(load: Any, case: str, name: str, faster: float | None, **more: Any) -> Any:
    return load("measure").Row(case, name, 2, ours_faster=faster, mine=name == "pyops", **more)


def test_summary_is_against_the_fastest_rival_of_each_case(load: Any) -> None:
    rows = [
        row(load, "op 1x2", "pyops", 1.0, peak_share=0.5),
        row(load, "op 1x2", "a", 2.0),
        row(load, "op 1x2", "b", 4.0),
        row(load, "op 1x2", "c", 0.5),
        row(load, "op 3x4", "pyops", 1.0, peak_share=0.9),
        row(load, "op 3x4", "a", 9.0),
        row(load, "op 3x4", "b", 8.0),
        row(load, "op 3x4", "gone", None),
    ]
    summary = load("summary")
    named, everybody = summary.summarize(rows, {"op": {"set": ("a", "b", "gone")}})
    assert named.ratios == {"op 1x2": 2.0, "op 3x4": 8.0}
    assert str(named) == (
        "op: geomean 4.00x, least 2.00x at 1x2, over 2 shapes, against the best of set: a, b "
        "(not timed: gone)"
    )
    assert everybody.label == "all peers"
    assert everybody.ratios == {"op 1x2": 0.5, "op 3x4": 8.0}
    assert summary.shares(rows) == ["op: 90% of the measured peak at 3x4, least 50% at 1x2"]
    assert summary.summarize(rows[:1], {}) == []


def test_every_rival_is_a_peer(load: Any) -> None:
    names = {peer.NAME for peer in load("measure").discover("peers").values()}
    assert set(load("products").TORCH_AO) <= names
    assert {name for rivals in load("models.minilm").RIVALS.values() for name in rivals} <= names


def test_steps_down_are_found(load: Any) -> None:
    scaling = load("ops.int8_scaling")
    rows = [
        row(load, f"int8_linear K1 N1 M={m}", "pyops", 1.0, median_us=us, p10_us=us / 2, gops=1.0)
        for m, us in ((4, 90.0), (1, 10.0), (2, 100.0), (3, 96.0))
    ]
    assert scaling.conclude(rows) == [
        "step down at M=4: 90.0 us, 6% less than 96.0 us at M=3 (10th percentiles: 6% less)",
    ]
    assert scaling.conclude(rows[1:]) == ["no step down of more than 5% from M=1 to M=3"]


def test_disturbed_cases_are_named(load: Any) -> None:
    rows = [
        row(load, "op 1x2", "pyops", 1.0, others_share=0.5),
        row(load, "op 3x4", "pyops", 1.0, others_share=0.02),
        row(load, "op 5x6", "pyops", 1.0),
    ]
    show = load("show")
    text = "these cases, during which others used the CPUs: op 1x2 (50%)"
    assert show.disturbances(rows) == text
    assert show.disturbances(rows[1:]) == ""
