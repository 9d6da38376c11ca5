"""Nets as steps, in float: what tracing, folding, fusing and equalization leave as it was."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from pyops.graph import net_steps as steps
from pyops.graph.net_fold import path_of
from pyops.graph.net_trace import trace_net
from pyops.graph.simple_code import CannotTraceError
from pyops.quantize.copying import copy_model
from pyops.quantize.static.equalize import equalize
from pyops.quantize.static.net import make_net


def layers_of(model: nn.Module) -> set[str]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def settle(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 3)
            nn.init.uniform_(module.weight, 0.05, 2)
            nn.init.normal_(module.bias)
    return model.eval().requires_grad_(False)


class Everything(nn.Module):
    """Modules, functions and methods; in-place operations on what others read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.point, self.fc, self.fc_bn = nn.Conv2d(8, 8, 1), nn.Linear(8, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.stem(x)
        y = F.hardswish(self.bn(self.depthwise(x)))
        y = self.drop(self.point(y))
        y += x
        z = y.relu_()
        y = y + z.clamp(max=1.5) + F.max_pool2d(z, 3, 1, 1)
        return F.relu(self.fc_bn(self.fc(y.mean(dim=(-1, -2)))), inplace=True)


def test_steps_compute_what_the_model_does():
    model, x = settle(Everything()), torch.randn(3, 3, 9, 9)
    expected = model(x)
    net = make_net(copy_model(model), layers_of(model), {"x": x})
    found = fx.Interpreter(net.model, graph=net.graph).run(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(x), expected)
    assert net.folded == {"stem.1": "stem.0", "bn": "depthwise", "fc_bn": "fc"}
    calls = [n for n in net.graph.nodes if n.target is steps.layer]
    assert [path_of(n) for n in calls] == ["stem.0", "depthwise", "point", "fc"]
    assert [n.args[3][0] for n in calls] == ["clamp", "hardswish", "relu", "relu"]
    assert calls[2].args[2] is calls[0]
    assert net.notes["point"] == ["residual", "relu"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.two.weight = self.one.weight
        self.c = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.b(self.conv(self.a(self.conv(x))))
        return self.c(self.one(x)) + self.two(x)


def test_norms_behind_shared_layers_and_tied_weights_stay():
    model, x = settle(Shared()), torch.randn(2, 4, 5, 5)
    expected = model(x)
    net = make_net(copy_model(model), layers_of(model), {"x": x})
    assert net.folded == {}
    found = fx.Interpreter(net.model, graph=net.graph).run(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Chain(nn.Module):
    """conv - relu6 - depthwise - relu - conv, with a shortcut around it, as MobileNetV2 has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.down, self.last = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 4, 3, groups=2)

    def forward(self, x):
        x = self.first(x)
        y = F.relu(self.depthwise(F.relu6(self.up(x))))
        return self.last(F.avg_pool2d(x + self.down(y), 2))


def test_equalization_keeps_the_function_and_fills_the_ranges():
    torch.manual_seed(0)
    model = settle(Chain())
    with torch.no_grad():
        model.up.weight *= torch.logspace(-2, 0, 12).reshape(-1, 1, 1, 1)
        model.up.bias *= torch.logspace(-2, 0, 12)
    batches = [{"x": torch.randn(4, 3, 8, 8)} for _ in range(3)]
    expected = [model(**batch) for batch in batches]
    own = copy_model(model)
    net = make_net(own, layers_of(model), batches[0])
    done = equalize(net, batches)
    assert set(done) == {"up", "depthwise", "first", "down"}
    for batch, y in zip(batches, expected, strict=True):
        torch.testing.assert_close(own(**batch), y, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(**batches[0]), expected[0])  # not the model that it was copied from

    def spread(net: nn.Module) -> float:
        values = torch.cat([F.relu6(net.up(net.first(b["x"]))) for b in batches])
        largest = values.amax((0, 2, 3))
        return float(largest.max() / largest[largest > 0].min())

    assert spread(model) > 50
    assert spread(own) < 1.01  # a depthwise reader leaves all of the range free


def test_equalization_stops_at_what_does_not_scale():
    class Silu(Chain):
        def forward(self, x):
            y = F.silu(self.up(F.sigmoid(self.first(x))))
            return self.last(self.down(self.depthwise(y)).softmax(1))

    model, x = settle(Silu()), torch.randn(2, 3, 8, 8)
    expected = model(x)
    net = make_net(model, layers_of(model), {"x": x})
    assert equalize(net, [{"x": x}]) == ["depthwise"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


class Branching(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 0 else -x


class Random(nn.Module):
    def forward(self, x):
        return x + random.random()


def test_what_cannot_be_a_graph():
    x = torch.randn(2, 3)
    with pytest.raises(CannotTraceError):
        trace_net(Branching(), ["x"])
    with pytest.raises(CannotTraceError, match="something else than the model"):
        make_net(Random(), set(), {"x": x})
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(CannotTraceError, match="hooks"):
        trace_net(hooked, ["input"])
