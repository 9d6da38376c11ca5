"""Derivatives of masked_matmul beyond the first gradient: of gradients, and in forward mode."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from pyops import backends, ops
from pyops.testing.cases.masked_matmul import MaskedCase, masked_case


def dense(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, torch.where(mask, weight, 0.0), bias)


def small(shape: tuple[int, ...]) -> tuple[MaskedCase, list[Tensor]]:
    case = masked_case(3, 3, 5, 7, 0.5)
    x = torch.randn(shape, dtype=torch.float64)
    inputs = [x, case.weight.double(), torch.randn(5, dtype=torch.float64)]
    return case, [t.requires_grad_() for t in inputs]


@pytest.mark.parametrize("shape", [(3, 7), (7,), (2, 2, 7), (0, 7)])
def test_gradients_of_gradients_in_float64(shape: tuple[int, ...]) -> None:
    case, inputs = small(shape)
    op = torch.ops.pyops.masked_matmul.default
    assert torch.autograd.gradgradcheck(lambda x, w, b: op(x, w, case.mask, b, 0), inputs)
    for index in range(3):  # one alone needs a gradient
        alone = [t.detach().requires_grad_(i == index) for i, t in enumerate(inputs)]
        assert torch.autograd.gradgradcheck(lambda x, w, b: op(x, w, case.mask, b, 0), alone)


def test_a_gradient_penalty_is_that_of_the_dense_product() -> None:
    """Through sparse kernels first, in float32, against float64."""
    case, state = masked_case(3, 70, 260, 300, 0.2), ops.SparsePattern()

    def penalty(dtype: torch.dtype) -> tuple[Tensor, ...]:
        x, w = (t.to(dtype).requires_grad_() for t in (case.x, case.weight))
        if dtype == torch.float32:
            out = ops.masked_matmul(x, w, case.mask, state=state)
            assert (state.reason is None) == backends.compiled()
        else:
            out = dense(x, w, case.mask, None)
        dx, dw = torch.autograd.grad(out.square().sum(), (x, w), create_graph=True)
        return torch.autograd.grad((dx.square().mean() + dw.square().mean()), (x, w))

    for got, want in zip(penalty(torch.float32), penalty(torch.float64), strict=True):
        error = (got.double() - want).norm() / want.norm()
        assert error < 1e-5
    assert bool((penalty(torch.float32)[1][~case.mask] == 0).all())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_forward_mode_keeps_its_tangents(grad: bool, autocast: bool) -> None:
    """Of x, of the weight and of the bias: none is dropped."""
    case = masked_case(3, 70, 260, 300, 0.2)
    given = {"x": case.x, "weight": case.weight, "bias": torch.randn(260)}
    for name in given:
        inputs = {n: t.clone().requires_grad_(grad) for n, t in given.items()}
        tangent = torch.randn_like(given[name])
        with forward_ad.dual_level(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            inputs[name] = forward_ad.make_dual(inputs[name], tangent)
            out = forward_ad.unpack_dual(ops.masked_matmul(mask=case.mask, **inputs))
            want = forward_ad.unpack_dual(dense(mask=case.mask, **inputs))
            assert out.tangent is not None
            assert torch.equal(out.tangent, want.tangent)
            assert torch.equal(out.primal, want.primal)


def test_forward_mode_of_torch_func() -> None:
    case = masked_case(3, 70, 260, 300, 0.2)
    direction = torch.randn_like(case.weight)
    out, tangent = torch.func.jvp(
        lambda w: ops.masked_matmul(case.x, w, case.mask), (case.weight,), (direction,)
    )
    assert torch.equal(out, dense(case.x, case.weight, case.mask, None))
    assert torch.allclose(tangent, dense(case.x, direction, case.mask, None), atol=1e-5)
