"""MaskedLinear with tensors of unusual memory, device and dtype."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyops import backends, ops
from pyops.nn import MaskedLinear

N, K, ROWS = 256, 320, 64
META = torch.device("meta")


def layer_of(dtype: torch.dtype = torch.float32) -> MaskedLinear:
    torch.manual_seed(0)
    layer = MaskedLinear(K, N, dtype=dtype)
    layer.set_mask(torch.rand(N, K) < 0.2)
    return layer


@pytest.mark.parametrize("offset", [1, 3, 8])
def test_a_mask_anywhere_in_its_memory(offset: int) -> None:
    """Masks are compared eight values at a time, which takes an offset of eights."""
    layer, x = layer_of(), torch.randn(ROWS, K)
    memory = torch.zeros(N * K + offset, dtype=torch.bool)
    mask = memory[offset:].view(N, K)
    mask.copy_(layer.weight_mask)
    want = layer(x)
    layer.weight_mask = mask
    assert torch.equal(layer(x), want)
    mask[:, 0] ^= True
    got, want = layer(x), F.linear(x, torch.where(mask, layer.weight, 0.0), layer.bias)
    assert torch.allclose(got, want, atol=1e-5)
    assert layer.remark == "last run by sparse kernels" or not backends.compiled()


def test_on_the_meta_device() -> None:
    layer, x = layer_of().to(META), torch.empty(2, ROWS, K, device=META)
    for out in (layer(x), ops.masked_matmul(x, layer.weight, layer.weight_mask, layer.bias)):
        assert out.device == META
        assert out.shape == (2, ROWS, N)
        assert out.requires_grad


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("width", [K, 1024])
def test_complex_weights(dtype: torch.dtype, width: int) -> None:
    """1024: enough for weights to be masked as bits, which these are not."""
    layer = MaskedLinear(width, N, dtype=dtype)
    layer.set_mask(torch.rand(N, width) < 0.2)
    x, mask = torch.randn(ROWS, width, dtype=dtype), layer.weight_mask
    with torch.no_grad():
        layer.weight.masked_fill_(~mask, torch.nan)
    out = layer(x)
    assert torch.equal(out, F.linear(x, torch.where(mask, layer.weight, 0.0), layer.bias))
    out.abs().sum().backward()
    got = layer.weight.grad
    layer.weight.grad = None
    F.linear(x, torch.where(mask, layer.weight, 0.0), layer.bias).abs().sum().backward()
    assert torch.allclose(got, layer.weight.grad)
    assert bool((got[~mask] == 0).all())


def test_a_weight_negated_by_a_flag_alone() -> None:
    """What has no view as bits is masked by torch."""
    layer, x = layer_of(), torch.randn(ROWS, K)
    weight, mask = torch._neg_view(layer.weight.detach()), layer.weight_mask
    for rows in (x, x[:2]):  # sparse, and dense
        want = F.linear(rows, torch.where(mask, weight, 0.0))
        assert torch.allclose(ops.masked_matmul(rows, weight, mask), want, atol=1e-5)
