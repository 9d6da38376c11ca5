"""include=, exclude= and strict=."""

from __future__ import annotations

import pytest
from torch import nn

import pyops
from pyops.nn import Int8Linear


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(64, 64)
        self.key = nn.Linear(64, 64)


def blocks():
    return nn.ModuleDict({"layers": nn.ModuleList([Block(), Block()]), "head": nn.Linear(64, 64)})


ALL = {"layers.0.query", "layers.0.key", "layers.1.query", "layers.1.key", "head"}


@pytest.mark.parametrize(
    ("keywords", "converted"),
    [
        ({}, ALL),
        ({"include": "head"}, {"head"}),
        ({"include": ["layers.0"]}, {"layers.0.query", "layers.0.key"}),
        ({"include": ("*.query", "head")}, {"layers.0.query", "layers.1.query", "head"}),
        ({"include": Block}, ALL - {"head"}),
        ({"include": [nn.Linear]}, ALL),
        ({"exclude": "layers.[1]*"}, {"layers.0.query", "layers.0.key", "head"}),
        ({"exclude": [Block]}, {"head"}),
        ({"exclude": nn.ModuleList}, {"head"}),
        ({"include": "layers", "exclude": "*.key"}, {"layers.0.query", "layers.1.query"}),
    ],
)
def test_include_and_exclude(keywords, converted):
    new = pyops.quantize(blocks(), strict=True, **keywords)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert set(rows) == ALL
    assert {name for name, row in rows.items() if row.kernel} == converted
    for name in ALL - converted:
        assert rows[name].reason in ("excluded (exclude=)", "not chosen by include=")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"include": "layers.0.quary"},
            "include='layers.0.quary' matches nothing in the model; did you mean 'layers.0.query'",
        ),
        ({"exclude": ["head", "*.value"]}, r"exclude='\*.value' matches nothing in the model"),
        ({"exclude": nn.Conv2d}, "exclude=Conv2d matches nothing in the model"),
        ({"exclude": "heads*"}, "did you mean 'head'"),
    ],
)
def test_a_pattern_that_matches_nothing(keywords, message):
    with pytest.raises(ValueError, match=message):
        pyops.quantize(blocks(), **keywords)


def test_an_include_that_finds_no_layer():
    with pytest.raises(ValueError, match="include='1' matches only GELU: no layer in it has"):
        pyops.quantize(nn.Sequential(nn.Linear(64, 64), nn.GELU()), include="1")


@pytest.mark.parametrize("keyword", ["include", "exclude"])
@pytest.mark.parametrize("value", [3, [None], [nn.Linear(2, 2)]])
def test_a_pattern_of_another_type(keyword, value):
    with pytest.raises(TypeError, match=f"{keyword}= takes names, globs or types, but got"):
        pyops.quantize(blocks(), **{keyword: value})


def test_small_layers_stay_unless_they_are_named():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    rows = pyops.explain(pyops.quantize(model)).rows
    assert rows[0].after == "Int8Linear"
    assert rows[1].after == "Linear"
    assert rows[1].reason.startswith("too small to be faster in int8: 64 x 4 weights")
    assert type(pyops.quantize(model, include=nn.Linear)[1]) is Int8Linear
    with pytest.raises(ValueError, match=r"(?s)strict=True and 1 layer\(s\).*1: too small"):
        pyops.quantize(model, strict=True)


def test_strict_lists_every_layer_and_reason():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64).double(), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"2 layer") as error:
        pyops.quantize(model, strict=True)
    lines = str(error.value).splitlines()
    assert lines[0] == "strict=True and 2 layer(s) would stay in float:"
    assert lines[1].strip().startswith("1: weight is float64")
    assert lines[2].strip().startswith("2: too small")
