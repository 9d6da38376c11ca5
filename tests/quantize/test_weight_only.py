"""quantize(weights=...): which layers come out, options, refusals, explain, never_slower."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyops
from pyops import backends
from pyops.graph import fusions_of
from pyops.nn import Int4Linear, Int8Linear, WeightOnlyInt8Linear
from pyops.testing.compare import sqnr_db

CLASSES = {"int8": WeightOnlyInt8Linear, "int4": Int4Linear}
X = torch.randn(3, 128)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(128, 512), nn.Linear(512, 128)
        self.norm, self.small = nn.LayerNorm(128), nn.Linear(128, 8)

    def forward(self, x):
        return self.small(x + self.down(torch.relu(self.up(self.norm(x)))))


def make() -> Block:
    torch.manual_seed(0)
    return Block().eval().requires_grad_(False)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_layers_and_report(weights):
    model = make()
    before = copy.deepcopy(model.state_dict())
    new = pyops.quantize(model, weights=weights)
    assert type(new.up) is type(new.down) is CLASSES[weights]
    assert type(new.small) is nn.Linear
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
    )
    assert sqnr_db(new(X), model(X)) > (35 if weights == "int8" else 14)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert rows["up"].after == CLASSES[weights].__name__
    assert rows["up"].kernel == (backends.kernel("weight_only"))
    assert rows["up"].bytes_before == 4 * (128 * 512 + 512)
    assert rows["up"].bytes_after < (0.28 if weights == "int8" else 0.16) * rows["up"].bytes_before
    label = {"int8": "weight-only int8", "int4": "int4"}[weights]
    assert rows["small"].reason.startswith(f"too small to be faster in {label}: 128 x 8")
    assert f"2 of 3 layers in {label};" in str(pyops.explain(new))


def test_the_default_stays_dynamic_int8():
    assert type(pyops.quantize(make()).up) is Int8Linear
    assert type(pyops.quantize(make(), weights=None).up) is Int8Linear


def test_the_options_of_int4():
    for size in (32, 64, 128):
        for symmetric in (True, False):
            new = pyops.quantize(make(), weights="int4", group_size=size, symmetric=symmetric)
            assert (new.up.packed.group_size, new.up.packed.symmetric) == (size, symmetric)
    default = pyops.quantize(make(), weights="int4")
    assert (default.up.packed.group_size, default.up.packed.symmetric) == (128, True)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"weights": "int2"}, "weights is 'int2', expected one of None, 'int4', 'int8'"),
        ({"weights": 4}, "weights is 4, expected one of"),
        ({"weights": ["int4"]}, r"weights is \['int4'\], expected one of"),
        ({"group_size": 64}, "group_size=64 goes with weights='int4', but weights is None"),
        (
            {"weights": "int8", "group_size": 64},
            "group_size=64 goes with weights='int4', but weights is 'int8'",
        ),
        (
            {"weights": "int8", "symmetric": False},
            "symmetric=False goes with weights='int4', but weights is 'int8'",
        ),
        ({"weights": "int4", "group_size": 48}, "group_size is 48, expected 32, 64 or 128"),
        ({"weights": "int4", "group_size": "64"}, "group_size is '64', expected 32, 64 or 128"),
        ({"weights": "int4", "group_size": 64.0}, "group_size is 64.0, expected 32, 64 or 128"),
        ({"weights": "int4", "symmetric": 1}, "symmetric is 1, expected True or False"),
    ],
)
def test_refusals(keywords, message):
    model = make()
    with pytest.raises(ValueError, match=f"quantize: {message}"):
        pyops.quantize(model, inplace=True, **keywords)
    assert type(model.up) is nn.Linear


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_other_keywords(weights):
    new = pyops.quantize(make(), weights=weights, include=["up", "small"])
    assert type(new.small) is CLASSES[weights]
    assert type(new.down) is nn.Linear
    assert type(pyops.quantize(make(), weights=weights, exclude="up").up) is nn.Linear
    with pytest.raises(ValueError, match=r"strict=True and 1 layer\(s\) would stay in float"):
        pyops.quantize(make(), weights=weights, strict=True)
    model = make()
    assert pyops.quantize(model, weights=weights, inplace=True) is model
    assert type(model.up) is CLASSES[weights]
    article = "an" if weights == "int4" else "a"
    message = f"up is {article} {CLASSES[weights].__name__} already"
    for other in (None, "int8", "int4"):
        with pytest.raises(ValueError, match=message):
            pyops.quantize(model, weights=other)
    with pytest.raises(ValueError, match="cannot turn the Linear itself"):
        pyops.quantize(nn.Linear(128, 128), weights=weights, inplace=True)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_measured_layers(weights, monkeypatch):
    from pyops.quantize import measure

    label = {"int8": "weight-only int8", "int4": "int4"}[weights]
    monkeypatch.setattr(measure, "_interleaved", lambda first, second: (2.0, 1.0))
    new = pyops.quantize(make(), weights=weights, example_inputs=X)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert rows["up"].reason == f"replaced: faster in {label}, input [3, 128]"
    assert rows["up"].sqnr_db > (35 if weights == "int8" else 14)
    monkeypatch.setattr(measure, "_interleaved", lambda first, second: (1.0, 2.0))
    slow = pyops.quantize(make(), weights=weights, example_inputs=X)
    reason = {row.name: row for row in pyops.explain(slow).rows}["up"].reason
    assert reason.startswith(f"float is faster here: 1 ms, {label} 2 ms")


def test_layers_that_only_dynamic_int8_fuses():
    """The patterns of pyops.graph are those of Int8Linear: others are called one by one."""
    for weights in ("int8", "int4"):
        new = pyops.quantize(make(), weights=weights)
        assert fusions_of(new).notes == {}
    assert fusions_of(pyops.quantize(make())).notes != {}


def test_tied_weights_are_packed_once():
    model = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 128)).requires_grad_(False).eval()
    model[1].weight = model[0].weight
    new = pyops.quantize(model, weights="int4")
    assert new[0].packed is new[1].packed


def test_an_input_deeper_than_int8_takes():
    """K is limited where sums are int32, not where they are floats."""
    model = nn.Sequential(nn.Linear(65537, 2, bias=False)).eval().requires_grad_(False)
    with pytest.raises(ValueError, match="more than 65536"):
        pyops.quantize(model)
    for weights in ("int8", "int4"):
        new = pyops.quantize(model, weights=weights)
        x = torch.randn(1, 65537)
        assert sqnr_db(new(x), model(x)) > 10
