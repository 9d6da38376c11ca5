"""The roofline probe builds with the system compiler, runs, and is read correctly."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def roofline(bench: Path) -> Any:
    """bench/roofline.py."""
    return importlib.import_module("roofline")


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_probe_builds_and_measures(roofline: Any) -> None:
    (measured,) = roofline.measure(1)
    bandwidth = [measured.values[f"read_{level}"] for level in ("l1", "l2", "l3", "dram")]
    assert all(value > 0.1 for value in bandwidth)
    assert bandwidth[0] > bandwidth[3]
    peaks = set(roofline.PEAK_OF_ISA.values())
    assert peaks <= set(measured.values) | set(measured.reasons)
    assert all(measured.values[name] > 0.1 for name in peaks & set(measured.values))


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_peaks_run_between_calls(roofline: Any) -> None:
    (measured,) = roofline.measure(2)
    peaks = roofline.Peaks([measured])
    present = set(roofline.PEAK_OF_ISA.values()) & set(measured.values)
    for name in present:
        run, operations = peaks.burst(name, 2)
        seconds = operations / measured.values[name] / 1e9
        assert seconds == pytest.approx(roofline.BURST_SECONDS, rel=0.1)
        assert run() == operations
    assert peaks.burst("no such instruction", 2) is None
    assert peaks.burst(next(iter(measured.values)), 1) is None


def test_no_compiler_is_a_reason(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler found"):
        roofline.measure(1)


@pytest.mark.skipif(shutil.which("false") is None, reason="no false")
def test_failing_compiler_is_a_reason(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="false could not build the roofline probe: no message"):
        roofline.measure(1)


OUTPUT = """\
{"name": "vpdpbusd_zmm", "unit": "GOP/s", "value": 100.0}
{"name": "tdpbusd_amx", "reason": "this CPU or system lacks it"}
{"name": "cache_l1", "unit": "bytes", "value": 1000.0}
{"name": "cache_l2", "unit": "bytes", "value": 10000.0}
{"name": "cache_l3", "unit": "bytes", "value": 50000.0}
{"name": "read_l1", "unit": "GB/s", "value": 80.0}
{"name": "read_dram", "unit": "GB/s", "value": 10.0}
"""


def test_limit_is_the_later_of_compute_and_memory(roofline: Any) -> None:
    measured = roofline.parse(OUTPUT, 2)
    assert measured.limit("vpdpbusd_zmm", 1e9, 1000) == (0.01, "compute")
    assert measured.limit("vpdpbusd_zmm", 1, 1e9) == (0.1, "dram")
    assert measured.limit("tdpbusd_amx", 1, 1) is None
    assert measured.limit("", 1, 1) is None
    levels = [measured.memory_level(bytes_) for bytes_ in (2000, 2001, 20001, 50001)]
    assert levels == ["l1", "l2", "l3", "dram"]
