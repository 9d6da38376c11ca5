"""regularizer: values and gradients against the formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import pyops
from pyops.prune.matrix import matrix_of
from pyops.prune.patterns import pattern_of
from pyops.prune.regularizer import KINDS, regularizer


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 2), nn.BatchNorm2d(5), nn.Linear(7, 6)).double()


def expected(model, rows, cols, root):
    total = 0.0
    for layer in (model[0], model[2]):
        weight = matrix_of(layer.weight.detach())
        for i in range(0, weight.shape[0], rows):
            for j in range(0, weight.shape[1], cols):
                unit = weight[i : i + rows, j : j + cols]
                total += (
                    float(unit.abs().sum())
                    if root
                    else math.sqrt(unit.numel()) * math.sqrt(float(unit.square().sum()))
                )
    return total


@pytest.mark.parametrize("name", ["unstructured", "2:4", "2:4x4", "block:2x3", "block:4x1"])
def test_group_lasso(name):
    model = net()
    pattern = pattern_of(name)
    value = regularizer(model, "group_lasso", pattern=name)
    assert float(value) == pytest.approx(expected(model, pattern.rows, pattern.cols, False))
    penalty = KINDS["group_lasso"]
    for layer in (model[0], model[2]):
        assert torch.autograd.gradcheck(lambda w: penalty(matrix_of(w), pattern), layer.weight)


def test_l1():
    model = net()
    value = regularizer(model)
    assert float(value) == pytest.approx(expected(model, 1, 1, True))
    value.backward()
    assert torch.equal(model[0].weight.grad, model[0].weight.sign())
    assert model[1].weight.grad is None
    assert model[0].bias.grad is None


def test_units_of_zero_have_gradient_zero():
    model = net()
    with torch.no_grad():
        model[2].weight[:2, :3] = 0
    regularizer(model, "group_lasso", pattern="block:2x3").backward()
    gradient = model[2].weight.grad
    assert bool((gradient[:2, :3] == 0).all())
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient[2:] != 0).all())


def test_masked_and_tied_weights():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    once = float(regularizer(model))
    assert once == pytest.approx(float(model[0].weight.abs().sum()))
    new = pyops.prune(model, 0.5)
    value = regularizer(new)
    assert float(value) == pytest.approx(float(new[0].weight.abs().sum()))
    assert float(value) < once
    value.backward()
    assert bool((new[0].weight.grad[~new[0].weight_mask] == 0).all())


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("bad", ["nan", "inf"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_weight_that_is_not_finite_stays_in_the_penalty(kind, bad, masked):
    """A penalty that leaves the layer out would look like a training that goes well."""
    model = net()
    if masked:
        model = pyops.prune(model, 0.5)
    with torch.no_grad():
        model[2].weight[5, 6] = float(bad)
        if masked:
            model[2].weight_mask[5, 6] = True
    value = regularizer(model, kind, pattern="block:2x3")
    assert str(float(value)) == bad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_sums_of_half_precision_are_float32(kind, dtype):
    model = net().to(dtype)
    with torch.no_grad():
        model[2].weight[:2] *= 2**-12  # float16 squares of it are 0
        model[0].weight *= 2**12  # and of these infinite
    value = regularizer(model, kind, pattern="block:2x3")
    assert value.dtype == torch.float32
    wide = regularizer(copy.deepcopy(model).double(), kind, pattern="block:2x3")
    assert float(value) == pytest.approx(float(wide), rel=1e-5)
    value.backward()
    assert model[2].weight.grad.dtype == dtype
    assert bool((model[2].weight.grad != 0).all())


def test_it_drives_whole_blocks_to_zero():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 8)), torch.randn(64, 16)
    y = x[:, :4] @ torch.randn(4, 8)  # inputs 4 to 15 tell nothing
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        penalty = regularizer(model, "group_lasso", pattern="block:8x4")
        ((model(x) - y).square().mean() + 0.01 * penalty).backward()
        optimizer.step()
    norms = model[0].weight.detach().view(8, 4, 4).square().sum((0, 2)).sqrt()
    assert float(norms[0]) > 20 * float(norms[1:].max())
