"""What Python decides while a forward is traced must not be frozen: fused equals unfused, always.

Each case is a forward that looks at its arguments or at something else in a way that a proxy, or
the moment of tracing, would answer differently. Fusing it is allowed where the result is the same.
"""

from __future__ import annotations

import builtins
import collections
from functools import lru_cache, partial, singledispatch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(self, x):
    return self.down(F.relu(self.up(x)))


def asks(x):
    return 2.0 if isinstance(x, Tensor) else 1.0


is_a = isinstance
ASK = {"tensor": asks}
FACTOR = {torch.float32: 2.0}
PARTIAL = partial(asks)
COUNTED: list[int] = []


class Asking:
    check = staticmethod(asks)

    def __call__(self, x):
        return asks(x)


ASKING = Asking()


class AskingChild(nn.Module):
    def prepare(self, x):
        return x * asks(x)

    def forward(self, x):
        return self.prepare(x)


class MaybeNone(nn.Module):
    def forward(self, x, give=True):
        return x if give else None


@singledispatch
def dispatched(x):
    return 1.0


dispatched.register(Tensor, lambda x: 2.0)


@lru_cache
def remembered(dimensions):
    return 2.0 if dimensions in {2} else 1.0


def match_class(self, x):
    match x:
        case Tensor():
            return self.mlp(x)
        case _:
            return self.mlp(x) * 2


def has_attribute(self, x):
    return self.mlp(x.hidden if hasattr(x, "hidden") else x)


def try_length(self, x):
    try:
        factor = len(x)
    except Exception:
        factor = 100
    return self.mlp(x) * factor


def try_truth(self, x):
    try:
        factor = 2 if x.sum() != 0 else 3
    except Exception:
        factor = 100
    return self.mlp(x) * factor


def try_unpack(self, x):
    try:
        a, _, _ = x.shape
    except ValueError:
        a = 100
    return self.mlp(x) * a


def unpack_a_wrong_number(self, x):
    first, _ = x.chunk(3)
    return self.mlp(first)


def unpack_a_wrong_shape(self, x):
    _, _, c = x.shape
    return self.mlp(x) * c


def autocast_inside(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.mlp(x)


def grad_mode(self, x):
    with torch.no_grad():
        return self.mlp(x) * (2 if torch.is_grad_enabled() else 1)


def no_weights(self, x):
    y, weights = self.attention(x, x, x, need_weights=False)
    return self.mlp(y) if weights is None else self.mlp(y * 2)


def no_value(self, x):
    y = self.maybe(x, give=False)
    return self.mlp(x) if y is None else self.mlp(y)


def counting(self, x):
    COUNTED.append(1)
    return self.mlp(x) * (len(COUNTED) % 2)


def overwrite(self, x):
    y = self.mlp(x) * self.table["factor"]
    self.table["factor"] += 1.0
    return y


def write_item(self, x):
    self.items[0] += 1
    return self.mlp(x) * self.items[0]


def write_to_a_child(self, x):
    self.norm.calls = getattr(self.norm, "calls", 0) + 1
    return self.mlp(x) * self.norm.calls


def write_data(self, x):
    x.data = x.data * 2
    return self.mlp(x)


def local_import(self, x):
    from builtins import isinstance as check

    return self.mlp(x) * (2 if check(x, Tensor) else 1)


TYPES = {
    "match": match_class,
    "alias": lambda self, x: self.mlp(x) * (2 if is_a(x, Tensor) else 1),
    "builtins": lambda self, x: self.mlp(x) * (2 if builtins.isinstance(x, Tensor) else 1),
    "static method": lambda self, x: self.mlp(x) * Asking.check(x),
    "callable object": lambda self, x: self.mlp(x) * ASKING(x),
    "function attribute": lambda self, x: self.mlp(x) * self.ask(x),
    "function in a dict": lambda self, x: self.mlp(x) * ASK["tensor"](x),
    "partial": lambda self, x: self.mlp(x) * PARTIAL(x),
    "method of a child": lambda self, x: self.mlp(self.child.prepare(x)),
    "forward of a child": lambda self, x: self.mlp(self.child.forward(x)),
    "child": lambda self, x: self.mlp(self.child(x)),
    "local import": local_import,
    "single dispatch": lambda self, x: self.mlp(x) * dispatched(x),
    "class": lambda self, x: self.mlp(x) * (2 if x.__class__ is Tensor else 1),
    "class name": lambda self, x: self.mlp(x) * (2 if x.__class__.__name__ == "Tensor" else 1),
    "callable": lambda self, x: self.mlp(x) * (2 if callable(x) else 1),
    "hasattr": has_attribute,
    "getattr": lambda self, x: self.mlp(x) * (1 if getattr(x, "tag", None) is None else 2),
}
# Identity, hashes, texts and exceptions: what a proxy cannot refuse by itself.
VALUES = {
    "dtype is": lambda self, x: self.mlp(x) * (2 if x.dtype is torch.float32 else 1),
    "dtype in set": lambda self, x: self.mlp(x) * (2 if x.dtype in {torch.float32} else 1),
    "dim in set": lambda self, x: self.mlp(x) * (2 if x.dim() in {2, 4} else 1),
    "dict.get": lambda self, x: self.mlp(x) * FACTOR.get(x.dtype, 1.0),
    "str": lambda self, x: self.mlp(x) * (2 if str(x.dtype) == "torch.float32" else 1),
    "format": lambda self, x: self.mlp(x) * (2 if f"{x.dim()}" == "2" else 1),
    "device text": lambda self, x: self.mlp(x) * (2 if "cpu" in str(x.device) else 1),
    "id": lambda self, x: self.mlp(x) * (2 if id(x) == id(x.contiguous()) else 1),
    "lru_cache": lambda self, x: self.mlp(x) * remembered(x.dim()),
    "grad_fn": lambda self, x: self.mlp(x) * (1 if x.grad_fn is None else 2),
    "None from attention": no_weights,
    "None from a child": no_value,
    "try len": try_length,
    "try bool": try_truth,
    "try unpack": try_unpack,
    "wrong number": unpack_a_wrong_number,
    "wrong shape": unpack_a_wrong_shape,
    "random": lambda self, x: self.mlp(x) * torch.rand(()).item(),
}
# What surrounds the calls, what is written, and what is returned.
EFFECTS = {
    "autocast inside": autocast_inside,
    "autocast around": torch.autocast("cpu", dtype=torch.bfloat16)(mlp),
    "grad mode": grad_mode,
    "global list": counting,
    "dict entry": overwrite,
    "list entry": write_item,
    "attribute of a child": write_to_a_child,
    "data": write_data,
    "ordered dict": lambda self, x: collections.OrderedDict(y=self.mlp(x)),
    "dict": lambda self, x: {"y": self.mlp(x), "x": [x, None, 3]},
    "float of a bias": lambda self, x: F.relu(self.same(x)) * float(self.same.bias[0]),
    "size added": lambda self, x: self.same(x) + x.size(0),
    "size added to a pair": lambda self, x: self.mlp(x) + x.size(0),
}
PARTS = {
    "function attribute": {"ask": lambda: asks},
    "method of a child": {"child": AskingChild},
    "forward of a child": {"child": AskingChild},
    "child": {"child": AskingChild},
    "None from attention": {"attention": lambda: nn.MultiheadAttention(64, 4)},
    "None from a child": {"maybe": MaybeNone},
    "dict entry": {"table": lambda: {"factor": 1.0}},
    "list entry": {"items": lambda: [0]},
    "attribute of a child": {"norm": lambda: nn.LayerNorm(64)},
}
CASES = TYPES | VALUES | EFFECTS


@pytest.mark.parametrize("name", CASES)
def test_a_decision_is_not_frozen(tools, x, name):
    model = tools.model_of(CASES[name], **PARTS.get(name, {}))
    results = []
    for fuse in (False, True):
        COUNTED.clear()
        remembered.cache_clear()
        converted = tools.convert(model, fuse)
        if fuse:
            COUNTED.clear()
        results.append([tools.outcome(converted, x) for _ in range(3)])
    assert tools.same(results[1], results[0])


def test_two_arguments_that_are_one_object(tools, x):
    model = tools.model_of(lambda self, q, k: self.mlp(q) * (2 if q is k else 1))
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    for other in (x, x.clone()):
        assert torch.equal(fused(x, other), unfused(x, other))


WITHOUT_GRAD = {
    "no_grad": torch.no_grad()(mlp),
    "inference_mode": torch.inference_mode()(mlp),
    "inside": lambda self, x: torch.no_grad()(lambda: self.mlp(x))(),
}


@pytest.mark.parametrize("name", WITHOUT_GRAD)
def test_a_forward_that_turns_gradients_off(tools, x, name):
    model = tools.model_of(WITHOUT_GRAD[name])
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    x = x.clone().requires_grad_()
    assert tools.same(tools.outcome(fused, x), tools.outcome(unfused, x))


IN_PLACE = {
    "siblings": lambda self, x: (self.same(x), self.act(x), self.last(x)),
    "residual": lambda self, x: self.same(x) + self.act(x),
    "pair": lambda self, x: (lambda h, z: self.down(h) * z)(self.up(x), self.act(x)),
    "op": lambda self, x: self.same(x) + torch.ops.aten.mul_.Tensor(x, x),
}


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.Sequential(nn.SELU(inplace=True))])
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_module_that_changes_what_a_moved_layer_reads(tools, x, name, act):
    """Layers move to where their results are needed; nobody may change their input in between."""
    model = tools.model_of(IN_PLACE[name], act=lambda: act)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert tools.same(tools.outcome(fused, x), tools.outcome(unfused, x))
