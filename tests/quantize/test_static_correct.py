"""Bias correction: what counts as an error of a layer's mean, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyops.quantize.copying import copy_model
from pyops.quantize.static.calibrate import calibrate
from pyops.quantize.static.correct import Means, correct_biases, mean_of, packed, unpacked
from pyops.quantize.static.net import make_net
from pyops.quantize.static.variants import _int8_layers, lower, make_data

NAMES = ("conv", "last")


class Two(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 6, 3), act, nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.last(self.act(self.conv(x)))


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (2, 3, 4, 5)])
def test_masks_in_bits(shape):
    torch.manual_seed(0)
    mask = torch.rand(shape) > 0.5
    bits = packed(mask)
    assert bits.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpacked(bits, shape), mask)


def test_mean_over_what_passes():
    y = torch.tensor([[[[1.0, 7.0, -50.0]], [[2.0, -1.0, -3.0]], [[-1.0, -2.0, 9.0]]]])
    passing = (y > 0) & (y < 6)
    assert mean_of(y, passing, False).tolist() == [1, 2, 0]
    assert mean_of(y[0, :, 0], passing[0, :, 0], True).tolist() == [1.5, 0, 0]
    assert mean_of(y, None, False).tolist() == [-14, pytest.approx(-2 / 3), 2]


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Identity()])
def test_against_plain_torch(act):
    """The first layer's bias, from codes and weights that are written out."""
    torch.manual_seed(0)
    model = Two(act).eval().requires_grad_(False)
    model.conv.weight *= 20  # so that a ReLU6 cuts off as well
    x = torch.randn(8, 3, 9, 9)
    net = make_net(copy_model(model), set(NAMES), {"x": x})
    at = calibrate(net, [{"x": x}], "mse")
    means = Means(net)
    means.values({"x": x})
    layers = _int8_layers(net, at)
    lower(net.graph, net.model, net.edges, at)
    correct_biases(net, means.found, {"x": x})
    scale, zero = at["x"]
    codes = (torch.round(x / scale) + zero).clamp(0, 255)
    read = ((codes - zero) * scale).double()
    y = model.double().conv(x.double())
    found = nn.functional.conv2d(read, layers["conv"].weight.double(), model.conv.bias)
    high = 6.0 if isinstance(act, nn.ReLU6) else float("inf")
    passing = (y > 0) & (y < high) if isinstance(act, (nn.ReLU, nn.ReLU6)) else y == y
    assert bool(passing.any())
    assert isinstance(act, (nn.ReLU, nn.ReLU6)) != bool(passing.all())
    error = ((found - y) * passing).sum((0, 2, 3)) / passing.sum((0, 2, 3))
    expected = model.conv.bias - error
    torch.testing.assert_close(
        layers["conv"]._buffers["bias"].double(), expected, rtol=0, atol=1e-4
    )


def test_biases_and_results_see_batches_from_everywhere():
    batches = [{"x": torch.full((2, 3), float(i))} for i in range(6)]
    data = make_data(nn.Identity(), [{"input": b["x"]} for b in batches])
    assert data.correcting["input"].unique().tolist() == [0, 2, 4]
    assert data.comparing["input"].unique().tolist() == [1, 3, 5]
    single = make_data(nn.Identity(), [{"input": batches[3]["x"]}])
    assert torch.equal(single.correcting["input"], single.comparing["input"])
