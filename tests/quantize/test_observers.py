"""Observers: bounded memory, exact counts, ranges against written-out versions."""

from __future__ import annotations

import pytest
import torch

from pyops.quantize.edge import Edge, edge_of
from pyops.quantize.observers import OBSERVERS, Histogram

METHODS = sorted(OBSERVERS)


def batches(signed: bool = True) -> list[torch.Tensor]:
    torch.manual_seed(0)
    found = [torch.randn(4, 8, 16, 16) * (i + 1) for i in range(5)]
    return found if signed else [x.relu() for x in found]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [True, False])
def test_range_lies_in_what_was_seen(method, signed):
    one = OBSERVERS[method]()
    data = batches(signed)
    for x in data:
        one.update(x)
    low, high = one.range()
    everything = torch.cat([x.flatten() for x in data])
    assert float(everything.min()) <= min(low, 0)
    assert high <= float(everything.max())
    assert high > 0.1 * float(everything.max())
    assert edge_of(low, high).zero_point == 0 or signed


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_and_constants(method):
    assert OBSERVERS[method]().range() == (0, 0)
    one = OBSERVERS[method]()
    one.update(torch.empty(0, 3))
    assert one.range() == (0, 0)
    one.update(torch.zeros(3, 4))
    assert edge_of(*one.range()) == Edge(1.0, 0)
    constant = OBSERVERS[method]()
    constant.update(torch.full((2, 5), 3.0))
    assert edge_of(*constant.range()).scale == pytest.approx(3 / 255, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_refused(method, bad):
    with pytest.raises(ValueError, match="NaN or Inf"):
        OBSERVERS[method]().update(torch.tensor([1.0, bad]))


def test_histogram_counts_each_value_once_in_bounded_memory():
    histogram = Histogram()
    everything = []
    for exponent in range(-6, 7):  # the range grows to both sides
        x = torch.randn(1000) * 10.0**exponent + exponent
        histogram.update(x)
        everything.append(x)
    values = torch.cat(everything).double()
    assert histogram.counts.numel() == 2048
    assert float(histogram.counts.sum()) == values.numel()
    assert (histogram.low, histogram.high) == (float(values.min()), float(values.max()))
    edges = histogram.start + torch.arange(1, 2048) * (histogram.width / 2048)
    found = histogram.counts.cumsum(0)[:-1]
    bins = histogram.width / 2048  # a value on a border may be counted on either side of it
    below = torch.tensor([float((values < e - 1e-6 * bins).sum()) for e in edges.tolist()])
    above = torch.tensor([float((values < e + 1e-6 * bins).sum()) for e in edges.tolist()])
    near = (below - 2 <= found) & (found <= above + 2)
    assert bool(near.all())


def test_histogram_samples_a_large_tensor_and_sees_its_bounds():
    histogram = Histogram()
    x = torch.rand(1 << 20)
    x[12345] = 7.0
    histogram.update(x)
    assert histogram.high == 7.0
    assert 1 << 17 <= float(histogram.counts.sum()) <= 1 << 19
    assert histogram.quantile(0.5) == pytest.approx(0.5, abs=0.01)


def test_moving_average_is_the_formula():
    one = OBSERVERS["moving_average"]()
    low = high = None
    for x in batches():
        one.update(x)
        now = float(x.min()), float(x.max())
        low = now[0] if low is None else low + 0.1 * (now[0] - low)
        high = now[1] if high is None else high + 0.1 * (now[1] - high)
    assert one.range() == pytest.approx((low, high))


def error(x: torch.Tensor, low: float, high: float) -> float:
    scale, zero = edge_of(low, high)
    code = (torch.round(x / scale) + zero).clamp(0, 255)
    return float((x - (code - zero) * scale).square().mean())


@pytest.mark.parametrize("signed", [True, False])
def test_mse_beats_the_other_methods_in_mean_squared_error(signed):
    torch.manual_seed(0)
    x = torch.distributions.Laplace(0, 1).sample((50_000,))
    x = x if signed else x.abs()
    ranges = {}
    for name, cls in OBSERVERS.items():
        one = cls()
        one.update(x)
        ranges[name] = one.range()
    errors = {name: error(x, *found) for name, found in ranges.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert ranges["entropy"][1] < ranges["min_max"][1]
    assert ranges["percentile"][1] <= ranges["min_max"][1]


@pytest.mark.parametrize(("low", "high"), [(0.0, 5.0), (-1.0, 3.0), (-2.0, -1.0), (1.0, 2.0)])
def test_edge_holds_zero_exactly(low, high):
    scale, zero = edge_of(low, high)
    assert 0 <= zero <= 255
    lowest, highest = -zero * scale, (255 - zero) * scale
    assert lowest <= min(low, 0) + scale
    assert highest >= max(high, 0) - scale
    assert low < 0 or zero == 0


def test_edge_of_tiny_and_empty_ranges():
    assert edge_of(0.0, 0.0) == Edge(1.0, 0)
    assert edge_of(0.0, 1e-44).scale > 0
