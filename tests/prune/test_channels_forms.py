"""Calls that act on each channel by itself, or give it another place: pruning goes through."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyops.prune.channels import channel_plan
from pyops.testing.channels import (
    check_pruned,
    conv,
    net,
    pooled,
)

KEPT_INSIDE = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu().sigmoid(),
    "hardswish": F.hardswish,
    "clamp": lambda x: x.clamp(-1, 1),
    "constants": lambda x: 1 - (2 * x + 3) / 4,
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "interpolate to": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:]),
    "pad": lambda x: F.pad(x, (1, 1, 2, 0)),
    "permute": lambda x: x.permute(0, 2, 3, 1).sigmoid().permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, -1).transpose(3, 1).transpose(2, 3),
    "unsqueeze": lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze(1).squeeze(-1),
    "slice": lambda x: x[:, :, 1:, ::2],
    "ellipsis": lambda x: x[..., 1:],
    "view": lambda x: x.view(x.size(0), -1, 8, 8),
    "view to and fro": lambda x: x.view(x.size(0), x.size(1), 64).view(x.shape[0], -1, 8, 8),
    "softmax over places": lambda x: x.flatten(2).softmax(-1).view(-1, x.size(1), 8, 8),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
}


MODULES = [
    nn.ReLU6(inplace=True),
    nn.Dropout2d(),
    nn.Identity(),
    nn.PReLU(),
    nn.PReLU(8),
    nn.BatchNorm2d(8),
    nn.BatchNorm2d(8, affine=False),
    nn.MaxPool2d(2),
    nn.AdaptiveAvgPool2d(4),
    nn.Upsample(scale_factor=2),
    nn.ZeroPad2d(1),
    nn.Sequential(nn.GELU(), nn.AvgPool2d(2), nn.BatchNorm2d(8)),
]


@pytest.mark.parametrize("name", KEPT_INSIDE)
def test_calls_that_act_on_each_channel(name):
    def forward(m, x):
        return m.fc(pooled(m.b(KEPT_INSIDE[name](m.a(x)))))

    small = check_pruned(net(forward, a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 4)))
    assert (small.a.out_channels, small.b.in_channels) == (4, 4)


@pytest.mark.parametrize("layer", MODULES, ids=lambda m: str(m).splitlines()[0])
def test_layers_that_act_on_each_channel(layer):
    def forward(m, x):
        return m.fc(pooled(m.b(m.layer(m.a(x)))))

    small = check_pruned(net(forward, a=conv(3, 8), layer=layer, b=conv(8, 6), fc=nn.Linear(6, 4)))
    assert (small.a.out_channels, small.b.in_channels) == (4, 4)


FLAT = {
    "flatten": lambda x: torch.flatten(x, 1),
    "method": lambda x: x.flatten(1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "torch.reshape": lambda x: torch.reshape(x, (x.shape[0], -1)),
    "twice": lambda x: x.flatten(2).flatten(1),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_flattened_channel_is_a_run_of_columns(name):
    def forward(m, x):
        return m.fc(FLAT[name](F.relu(m.a(x))))

    model = net(forward, a=nn.Conv2d(3, 6, 5), fc=nn.Linear(6 * 16, 4))
    small = check_pruned(model)
    assert small.fc.in_features == 3 * 16
    kept = channel_plan(small)["layers"]["a"]["out"]["kept"]
    columns = [16 * channel + i for channel in kept for i in range(16)]
    assert torch.equal(small.fc.weight, model.fc.weight[:, columns])


def test_the_layer_that_flattens():
    layers = [nn.Conv2d(3, 6, 5), nn.Flatten(), nn.Linear(6 * 16, 4)]
    small = check_pruned(net(lambda m, x: m.all(x), all=nn.Sequential(*layers)))
    assert small.all[2].in_features == 3 * 16


def test_channels_that_lie_last():
    """[N, H, W, C], then rows of pixels by channels."""

    def forward(m, x):
        y = F.gelu(m.a(x.permute(0, 2, 3, 1)))
        y = m.b(y).flatten(1, 2)
        return m.fc(m.c(y)[:, 0])

    layers = {
        "a": nn.Linear(3, 8),
        "b": nn.Linear(8, 10),
        "c": nn.Linear(10, 6),
        "fc": nn.Linear(6, 4),
    }
    small = check_pruned(net(forward, **layers))
    assert [small.a.out_features, small.b.out_features, small.c.out_features] == [4, 5, 3]


def test_rows_that_are_flattened_with_their_channels():
    """[N, T, C] -> [N, T * C]: a channel is one column in each of T runs."""
    model = net(lambda m, x: m.fc(m.a(x).flatten(1)), a=nn.Linear(5, 8), fc=nn.Linear(24, 4))
    small = check_pruned(model, torch.randn(2, 3, 5, dtype=torch.float64))
    kept = channel_plan(small)["layers"]["a"]["out"]["kept"]
    columns = [8 * row + channel for row in range(3) for channel in kept]
    assert channel_plan(small)["layers"]["fc"]["in"]["kept"] == columns


def test_one_dimension():
    model = net(
        lambda m, x: m.fc(F.max_pool1d(m.b(m.norm(m.a(x)).relu()), 2).flatten(1)),
        a=nn.Conv1d(3, 8, 3),
        norm=nn.BatchNorm1d(8),
        b=nn.Conv1d(8, 6, 3),
        fc=nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.PReLU(8), nn.Linear(8, 2)),
    )
    small = check_pruned(model, torch.randn(4, 3, 8, dtype=torch.float64))
    assert (small.b.in_channels, small.b.out_channels, small.fc[0].in_features) == (4, 3, 6)
    assert small.fc[1].num_features == small.fc[2].num_parameters == small.fc[3].in_features == 4


def test_three_dimensions():
    layers = {"a": nn.Conv3d(2, 8, 3), "norm": nn.BatchNorm3d(8), "b": nn.Conv3d(8, 4, 1)}
    model = net(lambda m, x: m.b(F.max_pool3d(m.norm(m.a(x)), 2)), **layers)
    small = check_pruned(model, torch.randn(2, 2, 6, 6, 6, dtype=torch.float64))
    assert (small.a.out_channels, small.b.out_channels) == (4, 4)
