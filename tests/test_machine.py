"""The facts beside a measured number, and the warning when the machine is not idle."""

from __future__ import annotations

import pytest

from pyops.testing import machine


def test_facts() -> None:
    facts = machine.facts()
    assert facts["processor"]
    assert int(facts["threads"]) >= 1


@pytest.mark.parametrize(
    ("ticks", "warning"),
    [
        ([(100, 200), (199, 300)], None),
        ([(100, 200), (150, 300)], "the CPUs were only 50% idle before the run, so do not quote"),
        ([None], None),
        ([(100, 200), (100, 200)], None),
    ],
)
def test_busy(
    monkeypatch: pytest.MonkeyPatch,
    ticks: list[tuple[float, float] | None],
    warning: str | None,
) -> None:
    monkeypatch.setattr(machine, "SAMPLE_SECONDS", 0)
    samples = iter(ticks)
    monkeypatch.setattr(machine, "cpu_ticks", lambda: next(samples))
    found = machine.busy()
    assert found is None if warning is None else str(found).startswith(warning)


def test_caps_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in machine.facts()["caps"]
