"""What is timed, what is refused, and how a run is compared with an earlier one."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pyops import backends, isa
from pyops.testing.timing import Timing


def peer(load: Any, make: Any) -> SimpleNamespace:
    """A peer with a given ``make``."""
    return SimpleNamespace(NAME="peer", KINDS=("int32_gemm",), SLOW=False, make=make)


def measure(load: Any, case: Any, *peers: Any, **options: Any) -> list[Any]:
    """The rows of one case, timed for a moment."""
    module = load("measure")
    rows: list[Any] = module.measure([case], list(peers), module.Schedule(0.01), None, **options)
    return rows


def test_a_wrong_kernel_is_refused_not_timed(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    good = case.make_ours()
    wrong = dataclasses.replace(case, make_ours=lambda: lambda: good() + 1)
    (row,) = measure(load, wrong)
    assert row.refused
    assert row.median_us is None
    assert row.reason.startswith("wrong result: differs in 57 of 57 places, first at (0, 0)")


def test_a_wrong_peer_is_refused_and_the_rest_is_timed(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    zeros = torch.zeros(3, 19, dtype=torch.int32)
    ours, row = measure(load, case, peer(load, lambda case: lambda: zeros))
    assert ours.median_us > 0
    assert row.refused
    assert row.median_us is None


@pytest.mark.parametrize("error", [RuntimeError("no kernel\nsecond line"), TypeError("no kernel")])
def test_a_failing_peer_is_skipped_with_its_reason(load: Any, error: Exception) -> None:
    def make(case: Any) -> Any:
        raise error

    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    _, row = measure(load, case, peer(load, make))
    assert row.reason == f"{type(error).__name__}: no kernel"
    assert not row.refused


def test_the_share_of_the_peak_is_taken_in_the_same_rounds(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(64, 256, 256)
    names = []

    class Twice:
        """An instruction that does twice our operations in our time."""

        def burst(self, name: str, threads: int) -> Any:
            names.append((name, threads))
            return case.make_ours(), 2 * case.operations

    with isa.force("generic"):
        (row,) = measure(load, case, peaks=Twice())
        assert row.peak_share is None
    if "avx2" not in isa.available():
        pytest.skip(f"needs AVX2; this machine has {isa.available()}")
    with isa.force("avx2"):
        (row,) = measure(load, case, peaks=Twice())
    assert names == [("vpmaddwd_ymm", torch.get_num_threads())]
    assert row.peak_share == pytest.approx(0.5, rel=0.3)


def run(**medians: float) -> dict[str, Any]:
    """A run with our rows, and a peer's that must not count."""
    shared = {"threads": 2}
    rows = [
        {"case": c, "candidate": "pyops", "median_us": us, **shared} for c, us in medians.items()
    ]
    rows.append({"case": "a", "candidate": "torch fp32", "median_us": 1e9, **shared})
    return {"rows": rows, "machine": {"processor": "x", "threads": "2"}}


def test_compare(load: Any) -> None:
    compare = load("compare")
    found = compare.changes(run(a=10.0, b=10.0, gone=1.0), run(a=10.9, b=11.1, new=1.0))
    ratios = [(change.case, round(change.ratio, 3)) for change in found]
    assert ratios == [("a, 2 threads", 1.09), ("b, 2 threads", 1.11)]
    assert [change.case for change in compare.regressions(found, 1.1)] == ["b, 2 threads"]
    with pytest.raises(
        ValueError, match=r"compare: no case in common; base has \['a, 2 threads'\]"
    ):
        compare.changes(run(a=1.0), run(b=1.0))


def test_compare_names_other_circumstances(load: Any) -> None:
    other = run()
    other["machine"]["threads"] = "1"
    assert load("compare").differences(run(), other) == ["threads: 2 -> 1"]


def test_caps_need_a_restart_only_when_they_are_not_in_force(load: Any) -> None:
    caps = load("caps")
    assert caps.missing("native", {}) == {}
    assert caps.missing("vnni", {}) == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
    assert caps.missing("vnni", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}) == {}


def test_variants_of_ours_are_slow_and_checked_as_ours(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    good = case.make_ours()
    variants = {"same": lambda: good, "other": lambda: lambda: good() + 1}
    case = dataclasses.replace(case, variants=variants)
    assert [row.candidate for row in measure(load, case)] == ["pyops"]
    ours, same, other = measure(load, case, slow=True)
    assert (ours.mine, same.mine, other.mine) == (True, True, True)
    assert same.ours_faster > 0
    assert other.refused


def test_threads_of_others_fall_asleep_before_the_next_burst(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    seen = []
    module = load("measure")
    monkeypatch.setattr(
        module,
        "interleave",
        lambda calls, **options: seen.append(options["settle"]) or timings(calls),
    )
    timings = lambda calls: {name: Timing([[1e-6]]) for name in calls}  # noqa: E731
    foreign = peer(load, lambda case: case.make_ours())
    measure(load, case, foreign)
    foreign.OWN_THREADS = True
    measure(load, case, foreign)
    foreign.make = lambda case: (_ for _ in ()).throw(load("case").UnavailableError("absent"))
    measure(load, case, foreign)
    assert seen == [False, True, False]


def test_a_disturbed_case_is_timed_again(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("measure")
    shares = iter([0.5, 0.3, 0.4, 0.6, 0.02, 0.7])
    monkeypatch.setattr(module, "others_share", lambda before, after: next(shares))
    monkeypatch.setattr(module, "wait_until_idle", lambda seconds: None)
    monkeypatch.setattr(
        module, "interleave", lambda calls, **options: {"timed": options["seconds"]}
    )
    schedule = module.Schedule(0.01, tries=3)
    assert module.quietest({}, schedule, False)[1] == 0.3
    assert module.quietest({}, schedule, False)[1] == 0.02
    assert module.quietest({}, module.Schedule(0.01), False)[1] == 0.7


def next_with_few_rows(name: str, m: int) -> str:
    """The kernel of ``name``'s layout that wants no more than ``m`` rows, by the table alone."""
    table = backends.implementations("int8_gemm")
    chosen = next(row for row in table if row.name == name)
    usable = [r for r in table if r.layout == chosen.layout and r.available and not r.test_only]
    later = usable[usable.index(chosen) :]
    return next((row.name for row in later if m >= row.min_rows), name)


@pytest.mark.parametrize("level", isa.available())
def test_the_kernel_that_ran_is_named(load: Any, level: str) -> None:
    ran = load("kernels").ran
    weight = torch.zeros(256, 256, dtype=torch.int8)
    with isa.force(level):
        active = backends.kernel("int8_gemm")
        rows = (1, 6, 7, 100)
        named = [ran("int8_gemm", weight, m) for m in rows]
        assert named == [next_with_few_rows(active, m) for m in rows]
        if level == "amx":
            assert named == ["avx512vnni", "avx512vnni", "amx", "amx"]
        with backends.force("int8_gemm", active):
            assert [ran("int8_gemm", weight, m) for m in rows] == [active] * 4


def test_least_rows_of_the_table_of_kernels() -> None:
    least = {row.name: row.min_rows for row in backends.implementations("int8_gemm")}
    assert least["generic"] == 1
    assert {name: rows for name, rows in least.items() if rows > 1} == {"amx": 7}


def test_weights_that_cannot_be_cut_run_on_the_wide_kernel(load: Any) -> None:
    if "avx2" not in isa.available():
        pytest.skip(f"needs AVX2; this machine has {isa.available()}")
    ran = load("kernels").ran
    small = torch.randint(-40, 41, (256, 256), dtype=torch.int8)
    even = torch.randint(-127, 128, (256, 256), dtype=torch.int8)
    with isa.force("avx2"):
        assert (ran("int8_gemm", small, 5), ran("int8_gemm", even, 5)) == ("avx2", "avx2wide")
