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


@pytest.mark.parametrize("name", ["weight", "weight_mask"])
def test_set_mask_changes_all_or_nothing(name: str) -> None:
    layer = layer_of()
    with torch.inference_mode():
        made = getattr(layer, name).detach().clone()
    if name == "weight":
        made = torch.nn.Parameter(made, requires_grad=False)
    setattr(layer, name, made)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    other = ~layer.weight_mask.clone()
    with pytest.raises(ValueError, match=f"set_mask: {name} was made in torch.inference_mode"):
        layer.set_mask(other)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    with torch.inference_mode():
        layer.set_mask(other)
    assert torch.equal(layer.weight_mask, other)
    assert not layer.weight.any()  # no place is in both masks


def test_an_assigned_weight_without_the_values_of_a_mask() -> None:
    state, layer = layer_of().state_dict(), layer_of().to(META)
    mask = {"weight_mask": state.pop("weight_mask")}
    model = torch.nn.Sequential(layer)
    message = "0.weight_mask is on the meta device and has no values, but those of 0.weight were"
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(
            {f"0.{key}": value for key, value in state.items()}, assign=True, strict=False
        )
    assert layer.weight.is_meta
    # In parts, the mask first; what the weight has elsewhere is left with the caller.
    given = {**state, "weight": torch.ones(N, K)}
    layer.load_state_dict(mask, assign=True, strict=False)
    assert layer.weight.is_meta
    layer.load_state_dict(given, assign=True, strict=False)
    assert torch.equal(layer.weight != 0, mask["weight_mask"])
    assert bool((given["weight"] == 1).all())
    x = torch.randn(ROWS, K)
    want = F.linear(x, mask["weight_mask"].float(), layer.bias)
    assert torch.allclose(layer(x), want, atol=1e-4)
