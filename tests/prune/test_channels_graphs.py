"""Sums, concatenation and shared layers: which channels can only be removed together."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.prune.channels import (
    channel_groups,
    channel_plan,
)
from pyops.testing.channels import (
    IMAGES,
    check_pruned,
    conv,
    filled,
    net,
    pooled,
)

SUMS = {
    "operator": lambda a, b: a + b,
    "torch.add": lambda a, b: torch.add(a, b, alpha=2),
    "method": lambda a, b: a.add(b),
    "add_": lambda a, b: a.add_(b),
    "iadd": operator.iadd,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "maximum": torch.maximum,
    "cat behind": lambda a, b: torch.cat([a, b], 2),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_tie_channels(name):
    def forward(m, x):
        return m.fc(pooled(F.relu(SUMS[name](m.a(x), m.b(x)))))

    model = net(forward, a=conv(3, 8), b=conv(3, 8), fc=nn.Linear(8, 4))
    small = check_pruned(model)
    plan = channel_plan(small)["layers"]
    assert plan["a"]["out"] == plan["b"]["out"] == plan["fc"]["in"]
    assert small.a.out_channels == small.b.out_channels == small.fc.in_features == 4


def test_dense_blocks():
    """Each layer reads all before it (DenseNet)."""

    def forward(m, x):
        parts = [m.stem(x)]
        for norm, layer in zip(m.norms, m.layers, strict=True):
            parts.append(layer(F.relu(norm(torch.cat(parts, 1)))))
        return m.fc(pooled(m.last(torch.cat(parts, dim=1))))

    growth, widths = 6, [10, 16, 22, 28]
    layers = nn.ModuleList(conv(width, growth, 3) for width in widths[:3])
    norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:3])
    last = nn.BatchNorm2d(28)
    small = check_pruned(
        net(forward, stem=conv(3, 10), norms=norms, layers=layers, last=last, fc=nn.Linear(28, 4))
    )
    assert [layer.in_channels for layer in small.layers] == [5, 8, 11]
    assert [norm.num_features for norm in small.norms] == [5, 8, 11]
    assert small.fc.in_features == small.last.num_features == 14


def test_sums_of_concatenations():
    """Half of one layer's channels are tied to each of two others."""

    def forward(m, x):
        return m.fc(pooled(torch.cat([m.a(x), m.b(x)], 1) + m.c(x)))

    model = net(forward, a=conv(3, 8), b=conv(3, 4), c=conv(3, 12), fc=nn.Linear(12, 4))
    groups = channel_groups(model, IMAGES)
    assert sorted(group.size for group in groups if group.reason is None) == [4, 8]
    small = check_pruned(model, sparsity=0.25)
    assert (small.a.out_channels, small.b.out_channels, small.c.out_channels) == (6, 3, 9)
    twice = net(
        lambda m, x: m.fc(pooled(torch.cat([y := m.a(x), y.relu()], 1))),
        a=conv(3, 8),
        fc=nn.Linear(16, 4),
    )
    assert check_pruned(twice).fc.in_features == 8


def test_concatenated_with_the_input():
    model = net(
        lambda m, x: m.fc(pooled(m.b(torch.cat([x, m.a(x)], 1)))),
        a=conv(3, 8),
        b=conv(11, 6),
        fc=nn.Linear(6, 4),
    )
    small = check_pruned(model)
    assert small.b.in_channels == 3 + 4
    assert channel_plan(small)["layers"]["b"]["in"]["kept"][:3] == [0, 1, 2]


@pytest.mark.parametrize("times", [1, 3])
def test_depthwise_convolutions_follow_their_input(times):
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.deep(m.a(x))))),
        a=conv(3, 8),
        deep=conv(8, 8 * times, 3, groups=8),
        b=nn.BatchNorm2d(8 * times),
        fc=nn.Linear(8 * times, 4),
    )
    small = check_pruned(model)
    deep = small.deep
    assert (deep.in_channels, deep.out_channels, deep.groups) == (4, 4 * times, 4)
    assert deep.weight.shape == (4 * times, 1, 3, 3)


def test_grouped_convolutions_lose_the_same_channels_of_each_group():
    model = net(
        lambda m, x: m.fc(pooled(m.b(F.relu(m.grouped(m.a(x)))))),
        a=conv(3, 12),
        grouped=conv(12, 18, 3, groups=3),
        b=conv(18, 6),
        fc=nn.Linear(6, 4),
    )
    small = check_pruned(model)
    assert small.grouped.weight.shape == (9, 2, 3, 3)
    kept = channel_plan(small)["layers"]["a"]["out"]["kept"]
    assert [i % 4 for i in kept[:2]] == [i % 4 for i in kept[2:4]] == [i % 4 for i in kept[4:]]


@pytest.mark.parametrize("split", ["count", "minus one"])
def test_squeeze_and_excitation(split):
    """A gate per channel, viewed with the batch and channel counts that the forward read."""

    def forward(m, x):
        x = m.a(x)
        n, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(n, c)
        y = m.up(F.relu(m.down(y))).sigmoid()
        y = y.view(n, c, 1, 1) if split == "count" else y.view(n, -1, 1, 1)
        return m.fc(pooled(x * y.expand_as(x)))

    model = net(forward, a=conv(3, 8), down=nn.Linear(8, 6), up=nn.Linear(6, 8), fc=nn.Linear(8, 4))
    small = check_pruned(model)
    assert (small.down.in_features, small.down.out_features) == (4, 3)
    assert small.up.out_features == small.fc.in_features == 4


def test_a_module_called_twice_has_one_set_of_channels():
    def forward(m, x):
        x = m.a(x)
        return m.fc(pooled(m.twice(F.relu(m.twice(x)))))

    model = net(forward, a=conv(3, 8), twice=conv(8, 8, 3), fc=nn.Linear(8, 4))
    small = check_pruned(model)
    plan = channel_plan(small)["layers"]
    assert plan["a"]["out"] == plan["twice"]["in"] == plan["twice"]["out"] == plan["fc"]["in"]


def test_tied_weights_stay_tied():
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.a(m.stem(x))).relu())),
        stem=conv(3, 8),
        a=conv(8, 8),
        b=conv(8, 8),
        fc=nn.Linear(8, 4),
    )
    model.b.weight = model.a.weight
    small = check_pruned(model)
    assert small.b.weight is small.a.weight
    plan = channel_plan(small)["layers"]
    assert plan["a"]["in"] == plan["b"]["in"] == plan["b"]["out"] == plan["a"]["out"]


def test_layers_whose_results_nothing_reads_run_all_the_same():
    def forward(m, x):
        y = m.a(x)
        m.unread(y)
        return m.fc(pooled(y))

    small = check_pruned(net(forward, a=conv(3, 8), unread=conv(8, 6), fc=nn.Linear(8, 4)))
    assert (small.unread.in_channels, small.unread.out_channels) == (4, 3)


def test_slices_of_a_sequential():
    """Each call makes them anew; the layers in them are those of the model."""

    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6))
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(pooled(self.features[3:](self.features[:3](x))))

    model = filled(Sliced())
    small = check_pruned(model)
    assert (small.features[1].num_features, small.features[3].out_channels) == (4, 3)
    fused = pyops.fuse(small.float(), example_inputs=IMAGES.float())
    with torch.inference_mode():
        assert torch.allclose(fused(IMAGES.float()), small(IMAGES.float()), atol=1e-5)
