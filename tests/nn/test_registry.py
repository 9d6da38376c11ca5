"""What is left alone, and the reason given."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import pyops
from pyops.nn.registry import matches, replacement, replacement_name, replaces, why_not


class OwnForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class Renamed(nn.Linear):
    pass


def linear(**kwargs):
    return nn.Linear(64, 64, **kwargs)


def with_hook(register):
    layer = linear()
    getattr(layer, register)(lambda *args: None)
    return layer


def with_parametrization():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    layer = linear()
    parametrize.register_parametrization(layer, "weight", Double())
    return layer


def with_extra():
    layer = linear()
    layer.lora = nn.Parameter(torch.zeros(3))
    return layer


def with_instance_forward():
    layer = linear()
    layer.forward = lambda x: x
    return layer


def with_nan(value):
    layer = linear()
    with torch.no_grad():
        layer.weight[3, 5] = value
    return layer


LEFT = {
    "subclass_forward": (lambda: OwnForward(64, 64), "OwnForward is a subclass of Linear with its"),
    "subclass": (lambda: Renamed(64, 64), "Renamed is a subclass of Linear .exact types only"),
    "forward_hook": (lambda: with_hook("register_forward_hook"), "has hooks"),
    "forward_pre_hook": (lambda: with_hook("register_forward_pre_hook"), "has hooks"),
    "backward_hook": (lambda: with_hook("register_full_backward_hook"), "has hooks"),
    "backward_pre_hook": (lambda: with_hook("register_full_backward_pre_hook"), "has hooks"),
    "parametrization": (with_parametrization, "has a parametrization"),
    "weight_norm": (lambda: parametrizations.weight_norm(linear()), "has a parametrization"),
    "pruning_mask": (lambda: prune.l1_unstructured(linear(), "weight", 0.5), "has hooks"),
    "extra_parameter": (with_extra, "holds 'lora' besides"),
    "instance_forward": (with_instance_forward, "forward was replaced on the instance"),
    "float64": (lambda: linear(dtype=torch.float64), "weight is float64"),
    "complex64": (lambda: linear(dtype=torch.complex64), "weight is complex64"),
    "meta": (lambda: linear(device="meta"), "meta device"),
    "no_inputs": (lambda: nn.Linear(0, 64), r"weight is \[64, 0\]"),
    "no_outputs": (lambda: nn.Linear(64, 0), r"weight is \[0, 64\]"),
    "deep": (lambda: nn.Linear(65537, 1), "in_features is 65537, more than 65536"),
    "nan": (lambda: with_nan(float("nan")), "weight holds NaN or Inf"),
    "inf": (lambda: with_nan(float("inf")), "weight holds NaN or Inf"),
    "lazy": (lambda: nn.LazyLinear(64), "not initialized: run the float model once"),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("case", LEFT)
def test_left_alone_with_a_reason(case):
    build, reason = LEFT[case]
    layer = build()
    model = nn.Sequential(nn.Linear(64, 64), layer)
    new = pyops.quantize(model)
    assert type(new[0]) is pyops.nn.Int8Linear
    assert type(new[1]) is type(layer)
    rows = {row.name: row for row in pyops.explain(new).rows}
    with pytest.raises(ValueError, match=reason):
        raise ValueError(rows["1"].reason)
    assert rows["1"].kernel is None
    with pytest.raises(ValueError, match=rf"(?s)strict=True and 1 layer.*1: .*{reason}"):
        pyops.quantize(model, strict=True)


def test_multi_head_attention_stays_with_a_reason():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(64, 4), "out": nn.Linear(64, 64)})
    new = pyops.quantize(model)
    assert type(new["attention"].out_proj) is type(model["attention"].out_proj)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert "MultiheadAttention reads its weights" in rows["attention"].reason
    assert "MultiheadAttention reads its weights" in rows["attention.out_proj"].reason
    with pytest.raises(ValueError, match=r"attention.out_proj: .*MultiheadAttention"):
        pyops.quantize(model, strict=True)
    pyops.quantize(model, strict=True, exclude=nn.MultiheadAttention)


def test_a_plain_linear_inside_attention_stays_too():
    attention = nn.MultiheadAttention(64, 4)
    attention.extra = nn.Linear(64, 64)
    new = pyops.quantize(nn.Sequential(attention, nn.Linear(64, 64)))
    assert type(new[0].extra) is nn.Linear


def test_the_longest_allowed_row():
    model = nn.Sequential(nn.Linear(65536, 1))
    x = torch.randn(2, 65536)
    out = pyops.quantize(model)(x)
    assert (out - model(x)).abs().max() < 0.05


def test_registering_a_replacement():
    from pyops.nn import registry

    class Mine(nn.Linear):
        pass

    class Int8Mine(pyops.nn.Int8Linear):
        pass

    assert replacement(Mine(2, 2)) is None
    assert matches(Mine(2, 2))
    before = {weights: dict(table) for weights, table in registry._replacements.items()}
    try:
        assert replaces(Mine)(Int8Mine) is Int8Mine
        assert replacement(Mine(2, 2)) is Int8Mine
        assert replacement(nn.Linear(2, 2)) is pyops.nn.Int8Linear
        assert replacement_name("Int8Mine") is Int8Mine
        assert why_not(Mine(2, 2)) is None
        model = nn.Sequential(Mine(64, 64))
        assert type(pyops.quantize(model)[0]) is Int8Mine
    finally:
        registry._replacements.clear()
        registry._replacements.update(before)
    assert not matches(nn.ReLU())
