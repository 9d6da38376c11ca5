"""What cannot be traced is refused with the reason, and runs as written."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import pyops


def mlp(self, x):
    return self.down(F.relu(self.up(x)))


def helper(x):
    return x if isinstance(x, Tensor) else x[0]


def helper_of_helper(x):
    return helper(x)


def decorated(function):
    @functools.wraps(function)
    def wrapper(self, x):
        assert isinstance(x, Tensor)
        return function(self, x)

    return wrapper


def unknown(x):
    return x * 2


fx.wrap("unknown")


def add_in_place(self, x):
    y = self.same(x)
    y += x
    return y


def set_item(self, x):
    y = self.same(x)
    y[0] = 1.0
    return F.relu(y)


def write_self(self, x):
    self.seen = x
    return self.mlp(x)


def count_calls(self, x):
    self.calls = self.calls + 1
    return self.mlp(x)


def append(self, x):
    self.kept.append(x)
    return self.mlp(x)


def nested_function(self, x):
    def inner(value):
        return value if type(value) is Tensor else None

    return self.mlp(inner(x))


def comprehension(self, x):
    return self.mlp(sum([row for row in [x] if isinstance(row, Tensor)]))


class MaybeNone(nn.Module):
    def forward(self, x, otherwise=None):
        return otherwise


class NoneElement(nn.Module):
    def forward(self, x):
        return x, None


ASKS = "it uses isinstance"
IN_PLACE = "it changes a tensor in place"
CONTROL = "symbolically traced variables cannot be used as inputs to control flow"

REFUSED = {
    "isinstance": (lambda self, x: self.mlp(x) if isinstance(x, Tensor) else x, ASKS),
    "in a helper": (lambda self, x: self.mlp(helper(x)), ASKS),
    "in a helper's helper": (lambda self, x: self.mlp(helper_of_helper(x)), ASKS),
    "in a method": (lambda self, x: self.mlp(self.check(x)), ASKS),
    "in a decorator": (decorated(mlp), "mlp is decorated, or a closure"),
    "in a nested function": (nested_function, "it uses type"),
    "in a comprehension": (comprehension, ASKS),
    "type": (lambda self, x: self.mlp(x) if type(x) is Tensor else x,
             "it uses type"),
    "is_tensor": (lambda self, x: self.mlp(x) if torch.is_tensor(x) else x,
                  "it uses torch.is_tensor"),
    "+=": (add_in_place, "it changes a value in place"),
    "setitem": (set_item, "it writes to an item"),
    "relu_": (lambda self, x: self.same(x).relu_(), "it uses the attribute relu_"),
    "F.relu_": (lambda self, x: F.relu_(self.same(x)), "it uses torch.nn.functional.relu_"),
    "inplace=": (lambda self, x: F.relu(self.same(x), inplace=True), f"{IN_PLACE} (relu)"),
    "inplace, by position": (lambda self, x: F.relu(self.same(x), True), f"{IN_PLACE} (relu)"),
    "mul_ of the input": (lambda self, x: self.mlp(x.mul_(2)), "it uses the attribute mul_"),
    "out=": (lambda self, x: torch.add(self.same(x), x, out=x), f"{IN_PLACE} (add)"),
    "self.x =": (write_self, "it writes to an attribute"),
    "self.n += 1": (count_calls, "it writes to an attribute"),
    "append": (append, "it reads self.kept, a list"),
    "torch.rand": (lambda self, x: self.mlp(x) + torch.rand(64), "it uses torch.rand"),
    "torch.zeros": (lambda self, x: self.same(x) + torch.zeros(64), "it uses torch.zeros"),
    "weight": (lambda self, x: F.linear(F.relu(self.same(x)), self.same.weight),
               "it uses the attribute weight"),
    "if": (lambda self, x: self.mlp(x) if x.sum() > 0 else x, CONTROL),
    "if dim": (lambda self, x: self.mlp(x) if x.dim() == 2 else x, CONTROL),
    "while": (lambda self, x: self.mlp(x) if x.shape[0] else x, CONTROL),
    "iterating": (lambda self, x: torch.stack([self.mlp(row) for row in x]),
                  "it iterates over a tensor"),
    "len": (lambda self, x: self.mlp(x) * len(x), "RuntimeError: 'len' is not supported"),
    "range": (lambda self, x: [self.mlp(x) for _ in range(x.shape[0])], "TypeError: "),
    "may be None": (lambda self, x: self.mlp(self.maybe(x, x)),
                    "it calls a MaybeNone with more than one tensor"),
    "None inside": (lambda self, x: self.mlp(self.element(x)[0]),
                    "it calls a NoneElement, which may do more than return a tensor"),
    "unknown function": (lambda self, x: self.mlp(unknown(x)),
                         "it calls unknown, which a graph knows nothing about"),
}  # fmt: skip
PARTS = {"maybe": MaybeNone, "element": NoneElement, "calls": int, "kept": list}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tools, x, name):
    forward, reason = REFUSED[name]
    model = tools.model_of(forward, **PARTS)
    type(model).check = lambda self, value: helper(value)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    method = f"{type(model).__name__}.forward"
    assert tools.notes(fused) == {}
    for found in tools.reasons(fused):
        assert found.startswith(f"{method} cannot be traced: {reason}")
    assert tools.reasons(fused)
    with torch.no_grad():
        assert tools.same(tools.outcome(fused, x), tools.outcome(unfused, x))


def test_the_reason_is_a_row_of_explain(tools):
    model = tools.convert(tools.model_of(REFUSED["isinstance"][0]))
    for row in pyops.explain(model).rows:
        assert row.reason == f"replaced; not fused: Model.forward cannot be traced: {ASKS}"
    assert tools.reasons(tools.convert(tools.model_of(mlp), fuse=False)) == set()


def test_a_forward_that_was_replaced_on_the_instance(tools, x):
    model = tools.model_of(mlp).eval()
    model.forward = lambda value: mlp(model, value) * 2
    fused = pyops.quantize(model, inplace=True, include=nn.Linear)
    assert tools.reasons(fused) == {
        "Model.forward cannot be traced: forward was replaced on the instance"
    }
    assert tools.notes(fused) == {}


def test_attributes_are_as_before_a_refused_trace(tools, x):
    model = tools.convert(tools.model_of(count_calls, calls=int))
    assert model.calls == 0
    model(x)
    assert model.calls == 1


LAZY = {
    "attribute": lambda self, x: self.mlp(x) * self.__dict__.setdefault("mask", x * 0 + 2),
    "entry": lambda self, x: self.mlp(x) * self.table.setdefault("mask", x * 0 + 2),
}


@pytest.mark.parametrize("name", LAZY)
def test_tracing_leaves_nothing_behind(tools, x, name):
    model = tools.model_of(LAZY[name], table=dict)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert fused.table == {}
    assert "mask" not in fused.__dict__
    assert torch.equal(fused(x), unfused(x))
    assert torch.equal(fused(x), unfused(x))


@pytest.mark.parametrize("part", ["up", "down", "norm"])
def test_a_part_that_has_hooks_already(tools, x, part):
    """The graph would never run: it is refused with the reason."""
    model = tools.model_of(lambda self, x: self.down(self.up(self.norm(x))),
                           norm=lambda: nn.LayerNorm(64))  # fmt: skip
    converted = tools.convert(model, fuse=False)
    getattr(converted, part).register_forward_hook(lambda module, args, out: out * 2)
    expected = converted(x)
    pyops.graph.fuse_layers(converted)
    assert tools.notes(converted) == {}
    (reason,) = tools.reasons(converted)
    assert reason.endswith(f"its {part} has hooks, is in train mode or was patched")
    assert torch.equal(converted(x), expected)


@pytest.mark.parametrize("model", [None, [nn.Linear(2, 2)], "model"])
def test_what_is_no_module(model):
    with pytest.raises(TypeError, match=r"fuse_layers: model must be an nn\.Module, but is"):
        pyops.graph.fuse_layers(model)
