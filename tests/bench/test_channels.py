"""The bench of nets with fewer channels: what it prints, and that it checks first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyops.testing.models import mobilenet_v2


@pytest.fixture
def channels(load: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    bench = load("channels")

    def random() -> torch.nn.Module:
        torch.manual_seed(0)
        return mobilenet_v2.MobileNetV2(classes=10)

    monkeypatch.setitem(bench.NETS, "mobilenet_v2", random)
    return bench


def test_a_line_for_each_case(channels: Any, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    arguments = ["mobilenet_v2", "--macs", "0.5", "--batch", "1,2", "--threads", "1"]
    try:
        assert channels.main([*arguments, "--size", "32", "--seconds", "0.01"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[:5] for line in lines] == [
        ["mobilenet_v2", "macs", "0.5", "1", "1"],
        ["mobilenet_v2", "macs", "0.5", "2", "1"],
    ]
    for line in lines:
        whole, _, faster, fewer, quotient = (float(one.strip("x")) for one in line.split()[5:])
        assert whole > 0
        assert fewer >= 2
        assert faster / fewer == pytest.approx(quotient, abs=0.02)


def test_wrong_results_are_not_timed(
    channels: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(channels.pyops, "fuse", lambda model, **_: lambda x: 1.1 * model(x))
    assert channels.main(["mobilenet_v2", "--batch", "1", "--size", "32"]) == 1
    assert "SQNR is 20.0 dB" in capsys.readouterr().err
