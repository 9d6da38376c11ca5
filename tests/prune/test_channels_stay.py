"""Channels that stay, because nothing smaller is known of a call that they reach."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyops.prune.channels import (
    channel_groups,
    prune_channels,
)
from pyops.testing.channels import (
    IMAGES,
    check_pruned,
    conv,
    net,
    pooled,
    reasons,
)


def test_a_module_that_also_reads_the_input_keeps_its_inputs():
    model = net(
        lambda m, x: m.fc(pooled(m.twice(m.a(m.twice(x))))),
        a=conv(8, 3),
        twice=conv(3, 8),
        fc=nn.Linear(8, 4),
    )
    small = check_pruned(model)
    assert (small.a.in_channels, small.a.out_channels) == (4, 3)
    assert reasons(model)["a"] == "twice (Conv2d) reads what has a fixed size"


def test_weights_that_others_hold_stay():
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 4)
    )
    model.register_parameter("also", model.a.weight)
    assert reasons(model)["a"] == "a shares a tensor with another kind of user"
    assert check_pruned(model).b.out_channels == 3


def swapped(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


STAY = {
    "softmax over them": (
        lambda x: x.softmax(1),
        "softmax is over all of them",
    ),
    "mean over them": (lambda x: x * x.mean(1, keepdim=True), "mean is over all of them"),
    "mean over all": (lambda x: x - x.mean(), "mean is over all of them"),
    "compared": (lambda x: torch.where(x > 0, x, -x), "they reach gt, of which no smaller"),
    "running sums": (lambda x: x.cumsum(1), "they reach cumsum, of which no smaller version"),
    "shuffled": (swapped, "floordiv computes with their number"),
    "chunks": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "they reach chunk, of which no"),
    "some of them": (lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), "the model takes some of them"),
    "their number": (lambda x: x / x.size(1), "truediv computes with their number"),
    "fixed view": (
        lambda x: x.view(-1, 8, 64).unsqueeze(3),
        "view has the fixed size 8 where they",
    ),
    "batch and channels": (
        lambda x: x.flatten(0, 1).unflatten(0, (-1, 8)),
        "flatten puts them into one dimension with the batch",
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_channels_that_stay(name):
    call, reason = STAY[name]
    model = net(
        lambda m, x: m.fc(pooled(m.b(call(m.a(x)).reshape(-1, 8, 8, 8)))),
        a=conv(3, 8),
        b=conv(8, 6),
        fc=nn.Linear(6, 4),
    )
    assert reasons(model)["a"].startswith(reason)
    small = check_pruned(model)
    assert (small.a.out_channels, small.b.out_channels) == (8, 3)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.GroupNorm(4, 8), "they reach layer (GroupNorm), of which no smaller version is known"),
        (conv(8, 8, groups=1), None),
        (nn.ConvTranspose2d(8, 8, 1), "they reach layer (ConvTranspose2d), of which no smaller"),
        (nn.utils.parametrizations.weight_norm(conv(8, 8)), "they reach layer (Parametrized"),
        (type("Own", (nn.Conv2d,), {})(8, 8, 1), "they reach weight"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_layers_that_keep_their_channels(layer, reason):
    def forward(m, x):
        return m.fc(pooled(m.b(m.layer(m.a(x)))))

    model = net(forward, a=conv(3, 8), layer=layer, b=conv(8, 6), fc=nn.Linear(6, 4))
    found = reasons(model)["a"]
    if reason is None:
        assert found is None
        return
    assert found is not None
    small = check_pruned(model)
    assert (small.a.out_channels, small.b.in_channels, small.b.out_channels) == (8, 8, 3)


def test_a_layer_with_hooks_stays():
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 4)
    )
    model.a.register_forward_hook(lambda m, args, y: y * torch.arange(8.0)[:, None, None])
    assert reasons(model)["a"] == "a has hooks"
    assert reasons(model)["b"] is None


def test_a_layer_whose_weight_is_read_stays():
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.a(x))) * m.b.bias.sum()),
        a=conv(3, 8),
        b=conv(8, 6),
        fc=nn.Linear(6, 4),
    )
    assert reasons(model)["b"] == "the model reads b.bias itself"
    assert reasons(model)["a"] == "the model reads b.bias itself"


def test_a_sum_with_a_parameter_keeps_its_channels():
    model = net(
        lambda m, x: m.fc(pooled(m.b(m.a(x) + m.shift))),
        a=conv(3, 8),
        b=conv(8, 6),
        fc=nn.Linear(6, 4),
    )
    model.shift = nn.Parameter(torch.randn(8, 1, 1, dtype=torch.float64))
    assert reasons(model)["a"] == "add meets a tensor of a fixed size"
    assert check_pruned(model).b.out_channels == 3
    model.shift = nn.Parameter(torch.randn(1, 8, 1, dtype=torch.float64))  # along rows
    assert check_pruned(model).a.out_channels == 4


def test_one_channel_spread_over_others_stays():
    model = net(
        lambda m, x: m.fc(pooled(m.a(x) * m.gate(x))),
        a=conv(3, 8),
        gate=conv(3, 1),
        fc=nn.Linear(8, 4),
    )
    assert reasons(model)["gate"] == "mul spreads it over other channels"
    small = check_pruned(model)
    assert (small.a.out_channels, small.gate.out_channels) == (4, 1)


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(2, 8)
            self.c = conv(8, 6)

        def forward(self, x, y, scale=1.0):
            inner = self.a(x)
            both = F.relu(inner + self.b(y))
            return {"values": [self.c(both), both.mean(1)], "seen": scale}

    model = Two().double().eval()
    inputs = {"x": IMAGES, "y": IMAGES[:, :2]}
    found = {g.name: g.reason for g in channel_groups(model, inputs) if g.paths}
    assert found == {"a": "mean is over all of them", "c": "they are the model's output"}
    with pytest.raises(ValueError, match="nothing to remove in Two"):
        prune_channels(model, 0.5, example_inputs=inputs)
