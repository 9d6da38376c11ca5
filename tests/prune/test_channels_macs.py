"""A target in multiply-accumulates, and what plans and explain say of them."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pyops
from pyops.prune.channels import apply_channel_plan, channel_plan, prune_channels
from pyops.testing.channels import IMAGES, Residual, conv, filled, net, pooled


class Mixed(nn.Module):
    """Grouped, depthwise, transposed and flattened, a layer that runs twice, and one that never."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.deep = nn.Conv2d(24, 48, 3, padding=1, groups=24)
        self.grouped = nn.Conv2d(48, 16, 1, groups=4)
        self.twice = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 4, 2, 2)
        self.fc1, self.fc2 = nn.Linear(4 * 256, 20), nn.Linear(20, 5)
        self.never = nn.Linear(20, 20)

    def forward(self, x):
        x = self.grouped(self.deep(self.stem(x).relu()).relu())
        x = self.up(self.twice(self.twice(x).relu()))
        return self.fc2(self.fc1(x.flatten(1)).relu())


def flops(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("make", [Residual, Mixed])
def test_counts_are_those_of_torch(make):
    model = filled(make())
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=1)
    (found,) = channel_plan(small)["macs"]
    assert 2 * found["before"] == flops(model, IMAGES)
    assert 2 * found["after"] == flops(small, IMAGES)
    for side in (0, 1):
        rows = [row[side] for row in found["layers"].values()]
        assert sum(rows) == found[("before", "after")[side]]
    assert "never" not in found["layers"]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("macs", [0.75, 0.5, 0.3, 0.1])
def test_targets(macs, scope, round_to):
    model = filled(Residual(width=64))
    options = {"example_inputs": IMAGES, "scope": scope, "round_to": round_to}
    small = prune_channels(model, macs=macs, **options)
    found = flops(small, IMAGES) / flops(model, IMAGES)
    assert macs - (0.03 if round_to == 1 else 0.15) < found <= macs
    if scope == "layer":  # a group is never cut without need
        groups = [row for row in channel_plan(small)["groups"] if row["layers"][0] != "fc"]
        shares = [row["after"] / row["before"] for row in groups]
        assert max(shares) - min(shares) <= 2 * round_to / 48


def test_the_last_step_takes_the_least_worth():
    """Two groups become smaller at the same sparsity: one of them is enough."""

    def forward(m, x):
        return m.fc(pooled(m.a(x))) + m.fd(pooled(m.b(x)))

    layers = {"a": conv(3, 16), "b": conv(3, 16), "fc": nn.Linear(16, 4), "fd": nn.Linear(16, 4)}
    for cheap in ("a", "b"):
        model = net(forward, **layers)
        with torch.no_grad():
            for layer in (model.a, model.b):
                layer.weight.fill_(1.0)
            model.fc.weight.fill_(1.0)
            model.fd.weight.fill_(1.0)
            getattr(model, cheap).weight[8:] = 1e-3
        small = prune_channels(model, macs=0.8, example_inputs=IMAGES, round_to=8)
        sizes = {"a": small.a.out_channels, "b": small.b.out_channels}
        assert sizes == {"a": 16, "b": 16, cheap: 8}


def test_no_group_becomes_smaller_without_need():
    """Of two, the one whose channels are worth less does not do alone, and the other one does."""
    model = nn.Sequential(conv(3, 16, 3), nn.ReLU(), conv(16, 16, 3), nn.ReLU(), conv(16, 12, 3))
    model = filled(model)
    with torch.no_grad():
        model[0].weight[8:] *= 1e-3
    small = prune_channels(model, macs=0.65, example_inputs=IMAGES, round_to=8)
    assert (small[0].out_channels, small[2].out_channels) == (16, 8)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({}, ValueError, "none is given, expected one of sparsity= and macs="),
        (
            {"sparsity": 0.5, "macs": 0.5},
            ValueError,
            "both sparsity=0.5 and macs=0.5 are given, expected one of sparsity= and macs=",
        ),
        ({"macs": "0.5"}, TypeError, "macs is '0.5', expected a number"),
        ({"macs": True}, TypeError, "macs is True, expected a number"),
        ({"macs": 1}, ValueError, "macs is 1, expected above 0 and below 1"),
        ({"macs": 0.0}, ValueError, "macs is 0.0, expected above 0 and below 1"),
        (
            {"macs": 0.1, "least": 16, "round_to": 1},
            ValueError,
            "macs is 0.1, but at least 0.184 of the multiply-accumulates stay with these groups, "
            "round_to and least",
        ),
        (
            {"macs": 0.1, "least": 16, "round_to": 1, "scope": "global"},
            ValueError,
            "macs is 0.1, but at least 0.184 of the multiply-accumulates stay with these groups, "
            "round_to and least",
        ),
    ],
)
def test_refusals(options, error, told):
    with pytest.raises(error, match=f"^prune_channels: {re.escape(told)}$"):
        prune_channels(filled(Residual()), example_inputs=IMAGES, **options)


def test_reports_add_up():
    """explain tells bytes, channels and products from the first size, also after a second call."""
    model = filled(Residual(width=64))
    before = {row.name: row.bytes_before for row in pyops.explain(model).rows}
    once = prune_channels(model, macs=0.6, example_inputs=IMAGES, round_to=16)
    small = prune_channels(once, macs=0.6, example_inputs=IMAGES, round_to=16)
    first, second = channel_plan(small)["macs"]
    assert first["after"] == second["before"]
    rows = {row.name: row for row in pyops.explain(small).rows}
    assert {name: row.bytes_before for name, row in rows.items()} == before
    assert rows["inner"].bytes_after == small.inner.weight.nbytes < before["inner"]
    counts = f"{first['layers']['inner'][0]:,} -> {second['layers']['inner'][1]:,}"
    assert rows["inner"].reason == (
        f"channels pruned: inputs 64 -> {small.inner.in_channels}, outputs 48 -> "
        f"{small.inner.out_channels}; multiply-accumulates {counts}"
    )
    again = apply_channel_plan(model, channel_plan(small))
    assert {row.name: row for row in pyops.explain(again).rows} == rows
    assert channel_plan(again) == channel_plan(small)
