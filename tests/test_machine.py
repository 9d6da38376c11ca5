"""The facts beside a measured number, and the warning when the machine is not idle."""

from __future__ import annotations

import subprocess
import sys

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


def test_others_are_what_this_process_did_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    assert machine.others_share((0, 10, 3), (2, 15, 4)) == pytest.approx((5 - 1) / (2 * 4))
    assert machine.others_share((0, 10, 3), (2, 10, 4)) == 0
    assert machine.others_share(None, (2, 10, 4)) is None
    use = machine.cpu_use()
    assert use is None or all(seconds > 0 for seconds in use)


def test_running_children_are_not_others() -> None:
    if machine.cpu_use() is None:
        pytest.skip("the system does not say what processes use")
    spin = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    before = machine.cpu_use()
    with subprocess.Popen([sys.executable, "-c", spin], **pipes) as child:
        child.stdout.readline()
        running = machine.cpu_use()
        child.communicate(b"\n")
    ended = machine.cpu_use()
    assert 0.36 <= running[2] - before[2]
    assert running[2] <= ended[2] + 0.04  # ticks are whole, of 0.01 s


def test_peers_are_named_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version", {"openvino": "1.2", "torchao": "3"}.get)
    assert machine.facts()["peers"] == "torchao 3, openvino 1.2"
    monkeypatch.setattr(machine, "version", lambda name: None)
    assert machine.facts()["peers"] == "none installed beside torch"


def test_caps_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in machine.facts()["caps"]
