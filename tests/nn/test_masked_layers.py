"""MaskedLinear, MaskedConv2d and MaskedConv1d as ordinary modules of torch."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from pyops.nn import MaskedConv1d, MaskedConv2d, MaskedLinear
from pyops.nn.masked_module import MASKED

CASES = [
    (lambda: nn.Linear(7, 5), MaskedLinear, (3, 7)),
    (lambda: nn.Linear(7, 5, bias=False), MaskedLinear, (2, 3, 7)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), MaskedConv2d, (2, 4, 5, 6)),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1), MaskedConv2d, (2, 3, 5, 6)),
    (lambda: nn.Conv1d(4, 6, 3, padding="same"), MaskedConv1d, (2, 4, 8)),
]
cases = pytest.mark.parametrize(("make", "cls", "shape"), CASES)


def masked(make, cls):
    torch.manual_seed(0)
    layer = make()
    mask = torch.rand(layer.weight.shape) < 0.4
    return layer, cls.from_float(copy.deepcopy(layer), mask), mask


def test_the_table():
    assert MASKED == {nn.Linear: MaskedLinear, nn.Conv2d: MaskedConv2d, nn.Conv1d: MaskedConv1d}


@cases
def test_output_and_gradients(make, cls, shape):
    layer, new, mask = masked(make, cls)
    with torch.no_grad():
        layer.weight.mul_(mask)
    x = torch.randn(shape)
    assert torch.equal(new(x), layer(x))
    with torch.no_grad():  # whatever is written there counts as 0
        new.weight.masked_fill_(~mask, float("nan"))
    assert torch.equal(new(x), layer(x))
    for one in (new, layer):
        (one(x) * torch.linspace(-1, 1, one(x)[0].numel()).view_as(one(x)[0])).sum().backward()
    assert torch.equal(new.weight.grad, layer.weight.grad * mask)
    new.weight.grad = None
    new(x).mul(float("inf")).sum().backward()
    assert bool((new.weight.grad[~mask] == 0).all())
    assert not bool(torch.isfinite(new.weight.grad[mask]).all())


@cases
def test_state_dict_deepcopy_and_pickle(make, cls, shape):
    layer, new, mask = masked(make, cls)
    state = new.state_dict()
    assert set(state) == {*layer.state_dict(), "weight_mask"}
    assert state["weight_mask"].dtype == torch.bool
    other = cls.from_float(make())
    assert other.sparsity == 0
    other.load_state_dict(state)
    file = io.BytesIO()
    torch.save(new, file)
    file.seek(0)
    copies = [
        other,
        copy.deepcopy(new),
        pickle.loads(pickle.dumps(new)),
        torch.load(file, weights_only=False),
    ]
    x = torch.randn(shape)
    for one in copies:
        assert type(one) is cls
        assert torch.equal(one.weight_mask, mask)
        assert torch.equal(one(x), new(x))
        assert one.weight is not new.weight


def test_loading_values_where_the_mask_is_false_sets_them_to_zero():
    layer, new, mask = masked(*CASES[0][:2])
    state = {**layer.state_dict(), "weight_mask": mask}
    assert bool((state["weight"][~mask] != 0).all())
    other = MaskedLinear(7, 5)
    other.load_state_dict(state)
    assert bool((other.weight[~mask] == 0).all())
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_mask"):
        new.load_state_dict(layer.state_dict())


@cases
def test_from_float_shares_parameters_and_to_float_is_its_inverse(make, cls, shape):
    layer = make().eval()
    weight = layer.weight
    new = cls.from_float(layer)
    assert new.weight is weight
    assert not new.training
    assert "weight_mask" not in layer._buffers
    assert set(new.__dict__) == set(layer.__dict__)
    assert repr(new) == f"{cls.__name__}{repr(layer).removeprefix(type(layer).__name__)}"
    mask = torch.rand(weight.shape) < 0.5
    new.set_mask(mask)
    assert bool((weight[~mask] == 0).all())
    with torch.no_grad():
        weight.fill_(1)
    back = new.to_float()
    assert type(back) is type(layer)
    assert back.weight is weight
    assert torch.equal(weight, mask.float())
    assert set(back.state_dict()) == set(layer.state_dict())
    x = torch.randn(shape)
    assert torch.equal(back(x), new(x))


def test_casts_and_moves():
    _, new, mask = masked(*CASES[0][:2])
    half = copy.deepcopy(new).bfloat16()
    assert half.weight_mask.dtype == torch.bool
    assert half(torch.randn(2, 7, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert new.to("meta").weight_mask.device.type == "meta"
    assert MaskedLinear(7, 5, device="meta").weight_mask.shape == mask.shape


def test_compile_autocast_and_trace():
    _, new, _ = masked(*CASES[2][:2])
    x = torch.randn(2, 4, 5, 6)
    compiled = torch.compile(new, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), new(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert new(x).dtype == torch.bfloat16
    assert torch.equal(torch.export.export(new.eval(), (x,)).module()(x), new(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MaskedLinear.from_float(nn.Conv1d(1, 1, 1)),
            TypeError,
            "MaskedLinear.from_float takes a Linear, but got Conv1d",
        ),
        (
            lambda: MaskedLinear.from_float(MaskedLinear(2, 2)),
            TypeError,
            "MaskedLinear.from_float takes a Linear, but got MaskedLinear",
        ),
        (
            lambda: MaskedLinear.from_float(nn.Linear(2, 2), torch.ones(2, 2)),
            TypeError,
            "mask is torch.float32, expected a torch.bool Tensor",
        ),
        (
            lambda: MaskedLinear(2, 2).set_mask([True]),
            TypeError,
            "mask is list, expected a torch.bool Tensor",
        ),
        (
            lambda: MaskedLinear(2, 3).set_mask(torch.ones(2, 3, dtype=torch.bool)),
            ValueError,
            "mask is [2, 3], but the weight is [3, 2]",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error) as found:
        call()
    assert str(found.value) == message


def test_an_assigned_state_keeps_its_own_values() -> None:
    layer = MaskedLinear(8, 4)
    layer.set_mask(torch.arange(32).reshape(4, 8) % 2 == 0)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    state["weight"] = torch.ones(4, 8)
    layer.load_state_dict(state, assign=True)
    assert bool((state["weight"] == 1).all())
    assert torch.equal(layer.weight, layer.weight_mask.float())
