"""What is timed, what is refused, and how a run is compared with an earlier one."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture
def load(bench: Path) -> Any:
    """Imports a module of bench/."""
    return importlib.import_module


def peer(load: Any, make: Any) -> SimpleNamespace:
    """A peer with a given ``make``."""
    return SimpleNamespace(NAME="peer", KINDS=("int32_gemm",), SLOW=False, make=make)


def test_a_wrong_kernel_is_refused_not_timed(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    good = case.make_ours()
    wrong = dataclasses.replace(case, make_ours=lambda: lambda: good() + 1)
    (row,) = load("measure").measure(wrong, [], 0.01, None)
    assert row.refused
    assert row.median_us is None
    assert row.reason.startswith("wrong result: differs in 57 of 57 places, first at (0, 0)")


def test_a_wrong_peer_is_refused_and_the_rest_is_timed(load: Any) -> None:
    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    zeros = torch.zeros(3, 19, dtype=torch.int32)
    ours, row = load("measure").measure(case, [peer(load, lambda case: lambda: zeros)], 0.01, None)
    assert ours.median_us > 0
    assert row.refused
    assert row.median_us is None


@pytest.mark.parametrize("error", [RuntimeError("no kernel\nsecond line"), TypeError("no kernel")])
def test_a_failing_peer_is_skipped_with_its_reason(load: Any, error: Exception) -> None:
    def make(case: Any) -> Any:
        raise error

    case = load("ops.int8_gemm").gemm_int32(3, 37, 19)
    _, row = load("measure").measure(case, [peer(load, make)], 0.01, None)
    assert row.reason == f"{type(error).__name__}: no kernel"
    assert not row.refused


def test_every_peer_is_well_formed(load: Any) -> None:
    peers: dict[str, ModuleType] = load("measure").discover("peers")
    assert {"torch_fp32", "torch_bf16", "torch_int_mm", "torchao_int8"} <= set(peers)
    names = [peer.NAME for peer in peers.values()]
    assert len(set(names)) == len(names)
    for module in peers.values():
        assert set(module.KINDS) <= {"linear", "int32_gemm", "model"}
        assert isinstance(module.SLOW, bool)
        assert callable(module.make)


def test_linear_reference_is_independent_of_the_op(load: Any) -> None:
    case = load("ops.int8_gemm").linear(5, 16, 7)
    exact = torch.nn.functional.linear(*(case.tensors[name] for name in ("x", "weight", "bias")))
    case.check_peer(exact)
    with pytest.raises(load("case").WrongResultError, match=r"SQNR is .* dB, expected at least 20"):
        case.check_peer(torch.randn_like(exact))
    with pytest.raises(load("case").WrongResultError, match="differs in"):
        case.check_ours(exact)


def run(**medians: float) -> dict[str, Any]:
    """A run with our rows, and a peer's that must not count."""
    rows = [{"case": c, "candidate": "pyops", "median_us": us} for c, us in medians.items()]
    rows.append({"case": "a", "candidate": "torch fp32", "median_us": 1e9})
    return {"rows": rows, "machine": {"processor": "x", "threads": "2"}}


def test_compare(load: Any) -> None:
    compare = load("compare")
    found = compare.changes(run(a=10.0, b=10.0, gone=1.0), run(a=10.9, b=11.1, new=1.0))
    assert [(change.case, round(change.ratio, 3)) for change in found] == [("a", 1.09), ("b", 1.11)]
    assert [change.case for change in compare.regressions(found, 1.1)] == ["b"]
    with pytest.raises(ValueError, match=r"compare: no case in common; base has \['a'\], now"):
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
