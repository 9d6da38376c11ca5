"""Convolutions take one image without a batch, as torch's do, and name the layer otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyops

X = torch.randn(3, 10, 10, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2)).eval()


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
def test_float(whole: bool) -> None:
    model = net() if whole else net()[0]
    for algorithm in ("auto", "sparse"):
        fast = pyops.fuse(model, algorithm=algorithm)
        assert torch.allclose(fast(X), model(X), atol=1e-5)
        assert torch.equal(fast(X), fast(X[None])[0])


@torch.no_grad()
def test_bfloat16_nets_cast_it() -> None:
    fast = pyops.fuse(net(), dtype=torch.bfloat16, example_inputs=X[None])
    assert fast(X).dtype == torch.float32
    assert torch.equal(fast(X), fast(X[None])[0])


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
def test_int8(whole: bool) -> None:
    model = net() if whole else net()[0]
    fast = pyops.quantize(model, calibration=[X[None]])
    assert fast(X).shape == model(X).shape
    if not whole:
        assert torch.equal(fast(X), fast(X[None])[0])


@torch.no_grad()
def test_lines() -> None:
    model = nn.Conv1d(3, 8, 3, padding=1)
    line = X[:, 0]
    for fast in (pyops.fuse(model), pyops.quantize(model, calibration=[line[None]])):
        assert fast(line).shape == (8, 10)
        assert torch.equal(fast(line), fast(line[None])[0])


@torch.no_grad()
def test_other_shapes_are_refused_by_the_layers_name() -> None:
    conv, line = nn.Conv2d(4, 8, 3, groups=2), nn.Conv1d(3, 8, 3)
    image = torch.randn(1, 4, 9, 9)
    for fast in (pyops.fuse(conv), pyops.quantize(conv, calibration=[image])):
        name = type(fast).__name__
        for x in (torch.zeros(9, 9), torch.zeros(2, 3, 9, 9), torch.zeros(1, 1, 4, 9, 9)):
            with pytest.raises(ValueError, match=rf"^{name}: x must be .*4, H, W\], but is \["):
                fast(x)
    with pytest.raises(
        ValueError, match=r"^FusedConv1d: x must be \[N, 3, L\] or \[3, L\], but is \[4, 9\]$"
    ):
        pyops.fuse(line)(torch.zeros(4, 9))
