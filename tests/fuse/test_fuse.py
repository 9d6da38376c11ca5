"""fuse: each form of a net against the float net, and what explain says of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.graph.net_forward import net_of
from pyops.graph.net_run import NetRun
from pyops.nn import FusedConv1d
from pyops.ops.conv_relu import kernel_of
from pyops.testing.compare import sqnr_db
from pyops.testing.models import mobilenet_v2, resnet


class Net(nn.Module):
    """Stride, "same", dilation, groups, depthwise, a sum, a concatenation, pools, a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.same, self.bn2 = nn.Conv2d(16, 16, 3, padding="same"), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 24, 3, padding=2, dilation=2, groups=2)
        self.prelu = nn.PReLU(24)
        self.bn3, self.fc = nn.BatchNorm2d(40), nn.Linear(40, 5)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.bn(self.stem(x)))
        y = self.bn2(self.same(x))
        y += x
        y = F.hardswish(self.depthwise(F.relu6(y)))
        z = self.prelu(self.grouped(F.max_pool2d(y, 3, 1, 1)))
        x = F.avg_pool2d(self.bn3(torch.cat([y, z], 1)), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(4, 8, 5, 2, 2), nn.BatchNorm1d(8)
        self.skip = nn.Conv1d(4, 8, 1, 2)

    def forward(self, x):
        return F.leaky_relu(self.bn(self.conv(x)) + self.skip(x), 0.1).mean(2)


def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


IMAGE = (2, 3, 20, 18)


@pytest.mark.parametrize("given", [False, True])
def test_the_graph_computes_what_the_net_does(settle, given):
    model, x = settle(Net()), torch.randn(IMAGE)
    expected, before = run(model, x), copy.deepcopy(model.state_dict())
    fused = pyops.fuse(model, example_inputs=x if given else None)
    assert net_of(fused) is not None
    assert sqnr_db(run(fused, x), expected) > 100
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(run(model, x), expected)
    assert net_of(fused).plan.folded == {"bn": "stem", "bn2": "same"}  # bn3 follows torch.cat
    assert net_of(fused).notes == {
        "stem": ["bn folded in", "relu"],
        "same": ["bn2 folded in", "residual", "relu6"],
        "depthwise": ["hardswish"],
        "grouped": ["leaky_relu"],
    }


def steps_of(program):
    """Kind and integers of each step."""
    at, found = 0, []
    while at < len(program.steps):
        kind, count = program.steps[at : at + 2]
        found.append((kind, program.steps[at + 2 : at + 2 + count]))
        at += 2 + count
    return found


def test_convolutions_and_pools_are_one_call(settle, monkeypatch):
    programs, call_run = [], NetRun.__call__

    def count(self, *given):
        programs.append(self.program)
        return call_run(self, *given)

    fused = pyops.fuse(settle(Net()))
    monkeypatch.setattr(NetRun, "__call__", count)
    run(fused, torch.randn(IMAGE))
    clamp, hardswish, leaky = (
        pyops.ops.epilogue.CONV_ACTIVATION_CODE[n] for n in ("clamp", "hardswish", "leaky_relu")
    )
    (program,) = programs
    conv, pool = 10, 11
    found = [(kind, *(ints[:3] if kind == conv else ints[:1])) for kind, ints in steps_of(program)]
    assert found == [
        (conv, 0, -1, 1),
        (conv, 1, 1, clamp),
        (conv, 2, -1, hardswish),
        (pool, 3),
        (conv, 4, -1, leaky),
    ]
    assert fused.__dict__["forward"].runs == [5]


def test_rows(settle):
    model, x = settle(Rows()), torch.randn(3, 4, 33)
    fused = pyops.fuse(model)
    assert type(fused.conv) is FusedConv1d
    assert sqnr_db(run(fused, x), run(model, x)) > 100


def test_other_sizes_run_in_the_same_graph(settle):
    model = settle(Net())
    fused = pyops.fuse(model, example_inputs=torch.randn(1, 3, 16, 16))
    for shape in ((1, 3, 16, 16), (3, 3, 31, 40)):
        x = torch.randn(shape)
        assert sqnr_db(run(fused, x), run(model, x)) > 100


@pytest.mark.parametrize(
    "pool", [nn.AdaptiveAvgPool2d((None, 2)), nn.AvgPool2d(2, divisor_override=-3)]
)
def test_pools_that_stay_torchs(pool):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Conv2d(4, 4, 1)).eval()
    fused = pyops.fuse(model, example_inputs=torch.randn(2, 3, 9, 9))
    for size in (9, 13):
        x = torch.randn(2, 3, size, size)
        assert sqnr_db(run(fused, x), run(model, x)) > 100


@pytest.mark.parametrize("layers", [18, 50])
def test_resnet(layers):
    model, x = resnet.random_model(layers), torch.randn(2, 3, 64, 64)
    expected = run(model, x)
    assert sqnr_db(run(pyops.fuse(model), x), expected) > 60
    assert sqnr_db(run(pyops.fuse(model, dtype=torch.bfloat16), x), expected) > 18


def test_mobilenet(settle):
    torch.manual_seed(1)
    model, x = settle(mobilenet_v2.MobileNetV2()), torch.randn(2, 3, 64, 64)
    expected = run(model, x)
    assert sqnr_db(run(pyops.fuse(model), x), expected) > 60
    assert sqnr_db(run(pyops.fuse(model, dtype=torch.bfloat16), x), expected) > 18


def test_explain(settle):
    fused = pyops.fuse(settle(Net()), dtype=torch.bfloat16, exclude="depthwise")
    rows = {row.name: row for row in pyops.explain(fused).rows}
    assert rows["stem"].reason == "replaced; fused: bn folded in, relu"
    assert (rows["stem"].before, rows["stem"].after) == ("Conv2d", "FusedConv2d")
    assert rows["depthwise"].reason == "excluded (exclude=)"
    assert rows["depthwise"].kernel is None
    assert rows["fc"].reason == "replaced"
    assert pyops.explain(fused).graphs == (
        "Net runs as one graph, layers with what follows them, in bfloat16 with float32 "
        "sums: casts its inputs, returns their dtype. 2 steps run in 1 call of run_net",
    )
    text = str(pyops.explain(fused))
    assert "4 of 5 layers in fused float" in text
    kernel = {row.kernel for row in pyops.explain(pyops.fuse(settle(Net()))).rows if row.kernel}
    assert kernel == {kernel_of(torch.float32)}


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 8)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        x = self.first(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.last(x).mean(1)


def test_an_item_of_a_tuple_is_computed_as_it_was():
    model, x = Attends().eval(), torch.randn(2, 5, 16)
    new = pyops.fuse(model, example_inputs=x)
    torch.testing.assert_close(run(new, x), run(model, x), rtol=1e-5, atol=1e-5)
