"""example_inputs= and never_slower=: errors and times measured, the faster kept, and why."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import Int8Linear
from pyops.quantize import measure


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))


@pytest.fixture
def clock(monkeypatch):
    """Decides the times: ``clock["0"] = (float_ms, int8_ms)`` by in_features of the layer."""
    times = {}

    def interleaved(first, second):
        float_out, int8_out = first(), second()
        assert not isinstance(first, nn.Module)
        assert float_out.shape == int8_out.shape
        return times[float_out.shape[-1]]

    monkeypatch.setattr(measure, "_interleaved", interleaved)
    return times


def rows(model):
    return {row.name: row for row in pyops.explain(model).rows}


def test_the_faster_one_is_kept_and_the_reason_recorded(clock):
    clock.update({96: (2.0, 1.0), 64: (1.0, 3.0)})
    new = pyops.quantize(make(), example_inputs=torch.randn(5, 64))
    assert type(new[0]) is Int8Linear
    assert type(new[2]) is nn.Linear
    found = rows(new)
    assert found["0"].reason == "replaced: faster in int8, input [5, 64]; fused: relu"
    assert (found["0"].ms_before, found["0"].ms_after) == (2.0, 1.0)
    assert found["2"].reason == "float is faster here: 1 ms, int8 3 ms, input [5, 96]"
    assert (found["2"].ms_before, found["2"].ms_after) == (1.0, 3.0)
    assert found["0"].sqnr_db > 30
    assert found["2"].sqnr_db > 30


def test_never_slower_can_be_off(clock):
    clock.update({96: (1.0, 9.0), 64: (1.0, 9.0)})
    new = pyops.quantize(make(), example_inputs=torch.randn(5, 64), never_slower=False)
    found = rows(new)
    assert all(row.kernel for row in found.values())
    assert all(row.ms_before is None and row.sqnr_db > 30 for row in found.values())


def test_nothing_is_faster_is_a_result_but_not_a_silent_one(clock, caplog):
    clock.update({96: (1.0, 9.0), 64: (1.0, 9.0)})
    with caplog.at_level(logging.WARNING, logger="pyops"):
        new = pyops.quantize(make(), example_inputs=torch.randn(5, 64))
    assert "int8 is slower for every layer of Sequential" in caplog.text
    assert not any(row.kernel for row in rows(new).values())
    x = torch.randn(5, 64)
    assert torch.equal(new(x), make()(x))


def test_strict_refuses_what_the_clock_decides(clock):
    clock.update({96: (2.0, 1.0), 64: (1.0, 3.0)})
    with pytest.raises(ValueError, match=r"(?s)strict=True and 1 layer.*2: float is faster"):
        pyops.quantize(make(), example_inputs=torch.randn(5, 64), strict=True)


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 64)
        self.never = nn.Linear(64, 64)
        self.small = nn.Linear(4, 4)

    def forward(self, x, *, times=2):
        for _ in range(times):
            x = self.a(x)
        return self.b(input=x[:1])


def test_calls_are_counted_per_shape_and_layers_not_reached_follow_the_size_rule(clock):
    clock[64] = (2.0, 1.0)
    example = {"x": torch.randn(3, 64), "times": 4}
    found = rows(pyops.quantize(Looped(), example_inputs=example))
    assert (found["a"].ms_before, found["a"].ms_after) == (8.0, 4.0)
    assert (found["b"].ms_before, found["b"].ms_after) == (2.0, 1.0)
    assert found["b"].reason.startswith("replaced: faster in int8, input [1, 64]")
    assert found["never"].after == "Int8Linear"
    assert found["never"].ms_before is None
    assert found["small"].reason.startswith("too small")


class Routed(nn.Module):
    """A mixture of experts: one call of ``a`` gets no row."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)

    def forward(self, x):
        return torch.cat([self.a(x[:0]), self.a(x), self.a(x)])


def test_calls_without_rows_take_no_time(clock):
    clock[64] = (2.0, 1.0)
    (row,) = pyops.explain(pyops.quantize(Routed(), example_inputs=torch.randn(3, 64))).rows
    assert (row.ms_before, row.ms_after) == (4.0, 2.0)
    assert row.reason.startswith("replaced: faster in int8, input [0, 64], [3, 64]")


@pytest.mark.parametrize("pack", [tuple, list])
def test_positional_arguments(clock, pack):
    clock[64] = (2.0, 1.0)
    new = pyops.quantize(Looped(), example_inputs=pack([torch.randn(3, 64)]))
    assert rows(new)["a"].ms_before == 4.0


def test_tied_layers_stay_together(clock):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight = model[0].weight
    times = iter([(2.0, 1.0), (1.0, 2.0)])
    measure._interleaved = lambda first, second: next(times)  # the fixture restores it
    new = pyops.quantize(model, example_inputs=torch.randn(2, 64))
    assert type(new[0]) is type(new[1]) is nn.Linear
    assert new[0].weight is new[1].weight
    assert rows(new)["0"].reason == "weight is tied to 1.weight, which stays in float"


def test_hooks_and_modes_are_gone_afterwards(clock):
    clock.update({96: (1.0, 9.0), 64: (1.0, 9.0)})
    model = make().train()
    pyops.quantize(model, example_inputs=torch.randn(5, 64), inplace=True)
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.is_grad_enabled()


def test_a_timed_call_ends_when_the_device_has_finished(monkeypatch):
    log = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: log.append(str(device)))
    for device in ("cpu", "meta", "cuda:1"):
        x = SimpleNamespace(device=torch.device(device))
        assert measure._finished(lambda given: log.append("layer") or given, x)() is x
    assert log == ["layer", "layer", "layer", "cuda:1"]


def test_errors():
    with pytest.raises(ValueError, match="never_slower=True needs example_inputs"):
        pyops.quantize(make(), never_slower=True)
    with pytest.raises(TypeError, match=r"example_inputs must be a tensor, a tuple .* is int"):
        pyops.quantize(make(), example_inputs=3)
    model = make()
    with pytest.raises(ValueError, match="Sequential fails on example_inputs: RuntimeError: "):
        pyops.quantize(model, example_inputs=torch.randn(5, 47))
    assert not any(m._forward_hooks for m in model.modules())


def test_a_real_clock_chooses_the_smaller_time():
    new = pyops.quantize(make(), example_inputs=torch.randn(5, 64), progress=True)
    for row in pyops.explain(new).rows:
        assert row.ms_before > 0
        assert row.ms_after > 0
        assert (row.kernel is not None) == (row.ms_after <= row.ms_before)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 5, 5, 5, 5, 500], [1, 7, 7, 7, 7, 7], (5.0, 7.0)),
        # The medians say 9 against 7, the fastest 5 against 7: measured again, for longer.
        ([1, 9, 9, 9, 5, 5] + [5] * 5, [1, 7, 7, 7, 7, 7] + [7] * 5, (5.0, 7.0)),
    ],
)
def test_interleaved_takes_turns_and_returns_medians(monkeypatch, a, b, expected):
    order = []
    durations = {"a": iter(a), "b": iter(b)}

    def timed(call):
        call()
        return next(durations[order[-1]]) * 10**6

    monkeypatch.setattr(measure, "_time", timed)
    monkeypatch.setattr(measure, "_BUDGETS_NS", (0, 0, 0))
    result = measure._interleaved(lambda: order.append("a"), lambda: order.append("b"))
    assert result == expected
    assert "".join(order) == "ab" * (1 + len(a))
