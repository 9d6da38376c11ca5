"""What a captured forward may be made of: each form gives the result of the forward as written."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from pyops.graph.export import capture_model
from pyops.graph.simple_code import CannotTraceError

SCALAR, VECTOR = torch.tensor(2.0), torch.ones(64)
X = torch.linspace(-2, 2, 5 * 4 * 64).reshape(5, 4, 64).sin()


def nested(self, x):
    return [self.up(x), {"k": (self.same(x), True, 2.5)}]


def twice_the_same(self, x):
    y = self.same(x)
    return x, y, y, x


def literal(self, x):
    scale = torch.tensor([1.5]) if x.shape[0] == 1 else torch.tensor([2.5])
    return self.same(x) * scale + torch.tensor(3)


def plain_tensor(self, x):
    return self.same(x) * self.plain


def parameter_of_its_own(self, x):
    return self.same(x) * self.gate + self.last.bias


def infinities(self, x):
    return self.same(x).masked_fill(x > 0, float("-inf"))


def without_gradients(self, x):
    with torch.no_grad():
        y = self.same(x)
    return y + self.last(x)


def without_autocast(self, x):
    with torch.autocast("cpu", enabled=False):
        y, z = self.same(x), self.last(x)
    return y + z


def indexed(self, x):
    y = self.same(x)
    return y[:, -1], y[..., 1:3, None], y[:, 1:], y[:, ::2], y[:-1], y.select(0, 0)


def views(self, x):
    q, k = self.same(x).chunk(2, -1)
    scores = torch.softmax(q @ k.transpose(-1, -2) / 4, -1)
    a, *_ = (scores @ x).split(32, -1)
    return a.flatten(1), k.permute(2, 0, 1).contiguous().squeeze(0), x.unbind(-1)[0]


def arithmetic(self, x):
    y = self.same(x)
    return torch.add(y, x, alpha=2), y - x, y / 2, -y, y**2, 1 - y, torch.rsub(y, x), y.mean((0, 1))


def casts(self, x):
    y = self.same(x)
    return y.float(), y.to(torch.bfloat16), y.type_as(x), y.double().to(x.dtype), y.to(x.device)


def random(self, x):
    return self.same(x) + torch.rand(64)


def functions(self, x):
    y = F.layer_norm(x + 1, (64,)), self.up(x), F.normalize(self.same(x), dim=-1)
    return (*y, F.pad(x, (1, 1)), F.one_hot(torch.arange(3), 4), torch.einsum("btk,bsk->bts", x, x))


def sizes(self, x):
    b, t, _ = x.shape
    return torch.arange(t) + b, x.reshape(b * t, -1), self.same(x).new_zeros(b, t + 1)


FORMS = [nested, twice_the_same, literal, plain_tensor, parameter_of_its_own, infinities]
FORMS += [without_gradients, without_autocast, indexed, views, arithmetic, casts, random]
FORMS += [functions, sizes]


def model_of(tools, forward):
    model = tools.model_of(forward, plain=lambda: torch.full((64,), 3.0))
    model.gate = nn.Parameter(torch.linspace(0, 1, 64))
    model = tools.convert(model, fuse=False)
    model.requires_grad_(False)
    return model


@pytest.mark.parametrize("forward", FORMS)
def test_forms(tools, forward):
    model = model_of(tools, forward)
    captured = capture_model(model, (X,), {})
    with torch.no_grad():
        for x in (X, X[:1], X[:3, :3].contiguous()):
            expected = tools.outcome(model, x)
            out = tools.outcome(captured, x)
            assert pytree.tree_structure(out) == pytree.tree_structure(expected)
            torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
    assert not captured.logged


def test_a_result_that_is_an_input(tools):
    model = model_of(tools, twice_the_same)
    out = capture_model(model, (X,), {})(X)
    assert out[0] is X
    assert out[3] is X
    assert out[1] is out[2]


def test_tensors_that_are_not_contiguous(tools):
    x, ids = X.transpose(0, 1), torch.arange(20).reshape(4, 5).t()
    for forward, call, reason in (
        (plain_tensor, x, {"a tensor is not contiguous"}),
        (lambda self, ids: self.same(self.plain * ids[..., None]), ids, set()),
        (
            lambda self, ids: (ids, self.same(self.plain * ids[..., None])),
            ids,
            {"a tensor is not contiguous"},
        ),
    ):
        model = model_of(tools, forward)
        captured = capture_model(model, (call,), {})
        out, expected = captured(call), model(call)
        torch.testing.assert_close(out, expected, rtol=0, atol=0)
        assert captured.logged == reason


def with_gradients(self, x):
    with torch.enable_grad():
        return self.same(x)


def under_autocast(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.same(x) @ x.transpose(-1, -2)


def size_in_the_result(self, x):
    return self.same(x), x.shape[0]


REFUSED = {
    with_gradients: "it has a block of its own (wrap_with_set_grad_enabled)",
    under_autocast: "it has a block of its own (wrap_with_autocast)",
    lambda self, x: self.same(x) * SCALAR: "it uses a tensor that is not part of the model",
    lambda self, x: self.same(x) * VECTOR: "it uses a tensor that is not part of the model",
    lambda self, x: x @ self.same.weight: "it uses a tensor that is not part of the model",
    lambda self, x: self.same(x) * x.max().item(): "a size depends on the values of a tensor",
}


@pytest.mark.parametrize("forward", REFUSED)
def test_forms_that_are_refused(tools, forward):
    with pytest.raises(CannotTraceError) as error:
        capture_model(model_of(tools, forward), (X,), {})
    assert str(error.value) == REFUSED[forward]


def test_a_size_in_the_result_must_be_known(tools):
    model = model_of(tools, size_in_the_result)
    captured = capture_model(model, (X,), {})
    assert [graph.sizes.dims for graph in captured.graphs] == [[[1, "a", 64]]]
    assert captured(X[:1])[1] == model(X[:1])[1] == 1
    assert not captured.logged
    assert captured(X)[1] == 5
    assert captured.logged == {"there is no graph for these sizes"}
