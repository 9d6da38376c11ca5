"""What a masked product saves for its gradients: no more than those that are asked need."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases.masked_matmul import masked_case

# 64 rows run sparse where something is compiled, 8 dense.
pytestmark = pytest.mark.parametrize("rows", [64, 8])


def test_a_weight_may_change_where_x_needs_no_gradient(rows: int) -> None:
    case = masked_case(1, rows, 260, 300, 0.2)
    _, _, want, _ = case.step()
    weight = case.weight.clone().requires_grad_()
    out = ops.masked_matmul(case.x, weight, case.mask)
    with torch.no_grad():
        weight.mul_(2)
    out.backward(case.grad)
    assert torch.equal(weight.grad, want)


def test_x_may_change_where_the_weight_needs_no_gradient(rows: int) -> None:
    case = masked_case(1, rows, 260, 300, 0.2)
    _, want, _, _ = case.step()
    x = case.x.clone().requires_grad_()
    given = x * 1
    out = ops.masked_matmul(given, case.weight, case.mask)
    given.detach().zero_()
    out.backward(case.grad)
    assert torch.equal(x.grad, want)


def test_what_is_needed_is_watched(rows: int) -> None:
    case = masked_case(1, rows, 260, 300, 0.2)
    weight = case.weight.clone().requires_grad_()
    for changed, x in ((case.x, case.x), (case.mask, case.x.clone())):
        out = ops.masked_matmul(x, weight, case.mask)
        changed.logical_not_() if changed is case.mask else changed.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.backward(case.grad)


def test_a_bias_alone_takes_an_input_of_inference_mode(rows: int) -> None:
    case = masked_case(1, rows, 260, 300, 0.2)
    with torch.inference_mode():
        x = case.x.clone()
    bias = case.bias.clone().requires_grad_()
    ops.masked_matmul(x, case.weight, case.mask, bias).backward(case.grad)
    assert torch.allclose(bias.grad, case.grad.sum(0), atol=1e-4)


def alive_after(case_x: Tensor, weight: Tensor, mask: Tensor) -> bool:
    """Whether the product keeps its input."""
    x = case_x * 1
    seen = weakref.ref(x)
    out = ops.masked_matmul(x, weight, mask, torch.zeros(len(weight), requires_grad=True))
    del x
    gc.collect()
    assert out.requires_grad
    return seen() is not None


def test_a_frozen_weight_does_not_keep_x(rows: int) -> None:
    case = masked_case(1, rows, 260, 300, 0.2)
    assert not alive_after(case.x, case.weight, case.mask)
    frozen = case.x.clone().requires_grad_()
    assert not alive_after(frozen, case.weight, case.mask)
    assert alive_after(frozen, case.weight.clone().requires_grad_(), case.mask)


def test_second_derivatives_of_one_input_alone(rows: int) -> None:
    """The first gradient of x does not take x, nor that of the weight the weight."""
    case = masked_case(1, rows, 260, 300, 0.2)
    kept = torch.where(case.mask, case.weight, 0.0)
    grad = case.grad.clone().requires_grad_()
    x, weight = case.x.clone().requires_grad_(), case.weight.clone().requires_grad_()
    out = ops.masked_matmul(x, case.weight, case.mask)
    (dx,) = torch.autograd.grad(out, x, grad, create_graph=True)
    (got,) = torch.autograd.grad(dx.square().sum(), grad)
    assert torch.allclose(got, 2 * (case.grad @ kept) @ kept.t(), atol=1e-3)
    out = ops.masked_matmul(case.x, weight, case.mask)
    (dw,) = torch.autograd.grad(out, weight, grad, create_graph=True)
    (got,) = torch.autograd.grad(dw.square().sum(), grad)
    want = 2 * case.x @ torch.where(case.mask, case.grad.t() @ case.x, 0.0).t()
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
