"""Each pattern: what runs in a layer's call, and what must not. The notes say what was fused."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

# gelu and silu are fits: 1.5e-7 and 6e-7 of |x| off (tests/ops/test_int8_gemm.py). A hidden value
# that crosses a rounding boundary by that moves one code by one step, 1/127 of its row's largest.
FITTED = 2e-2

PAIR = {"up": ["one call with down"], "down": ["one call with up"]}


def pair_of(activation):
    return {"up": [activation, *PAIR["up"]], "down": PAIR["down"]}


ALONE = {"same": ["relu"]}
RESIDUAL = {"same": ["residual"]}
BOTH = {"same": ["residual", "relu"]}
TWO = {"same": ["one call with last"], "last": ["one call with same"]}
GATED = {"same": ["relu", "one call with last"], "last": ["gate", "one call with same"]}

FUSED = {
    "F.relu": (lambda self, x: F.relu(self.same(x)), ALONE),
    "torch.relu": (lambda self, x: torch.relu(self.same(x)), ALONE),
    "x.relu()": (lambda self, x: self.same(x).relu(), ALONE),
    "nn.ReLU": (lambda self, x: self.relu(self.same(x)), ALONE),
    "nn.ReLU in place": (lambda self, x: self.relu_(self.same(x)), ALONE),
    "F.silu": (lambda self, x: F.silu(self.same(x)), {"same": ["silu"]}),
    "nn.SiLU": (lambda self, x: self.silu(self.same(x)), {"same": ["silu"]}),
    "F.gelu": (lambda self, x: F.gelu(self.same(x)), {"same": ["gelu"]}),
    "nn.GELU": (lambda self, x: self.gelu(self.same(x)), {"same": ["gelu"]}),
    "F.gelu tanh": (lambda self, x: F.gelu(self.same(x), approximate="tanh"),
                    {"same": ["gelu_tanh"]}),
    "nn.GELU tanh": (lambda self, x: self.tanh(self.same(x)), {"same": ["gelu_tanh"]}),
    "+": (lambda self, x: self.same(x) + x, RESIDUAL),
    "+ from the left": (lambda self, x: x + self.same(x), RESIDUAL),
    "torch.add": (lambda self, x: torch.add(x, self.same(x)), RESIDUAL),
    "operator.add": (lambda self, x: operator.add(self.same(x), x), RESIDUAL),
    "x.add": (lambda self, x: self.same(x).add(x), RESIDUAL),
    "residual, relu": (lambda self, x: F.relu(self.same(x) + x), BOTH),
    "dropout between": (lambda self, x: F.relu(self.drop(self.same(x))) , ALONE),
    "F.dropout between": (lambda self, x: F.dropout(self.same(x), 0.5, self.training) + x,
                          RESIDUAL),
    "identity between": (lambda self, x: self.identity(self.same(x)) + x, RESIDUAL),
    "siblings": (lambda self, x: self.same(x) - self.last(x), TWO),
    "siblings with activations": (
        lambda self, x: F.relu(self.same(x)) - self.last(x),
        {"same": ["relu", *TWO["same"]], "last": TWO["last"]},
    ),
    "gate": (lambda self, x: self.same(x) * x, {"same": ["gate"]}),
    "gate from the left": (lambda self, x: torch.mul(x, F.relu(self.same(x))),
                           {"same": ["relu", "gate"]}),
    "a method's gate": (lambda self, x: (self.same(x) + x).mul(x), {"same": ["residual", "gate"]}),
    "the same layer as its gate": (lambda self, x: self.same(x) * self.same(x),
                                   {"same": ["gate"]}),
    "a gated pair": (lambda self, x: F.relu(self.same(x)) * self.last(x), GATED),
    "a gated pair, the other way": (lambda self, x: self.last(x) * F.relu(self.same(x)), {
        "last": ["one call with same"], "same": ["relu", "gate", "one call with last"]}),
    "a pair": (lambda self, x: self.down(self.up(x)), PAIR),
    "a pair with relu": (lambda self, x: self.down(F.relu(self.up(x))), pair_of("relu")),
    "a pair with gelu": (lambda self, x: self.down(F.gelu(self.up(x))), pair_of("gelu")),
    "a pair with dropout": (lambda self, x: self.drop(self.down(self.drop(F.relu(self.up(x))))),
                            pair_of("relu")),
    "a pair and a residual": (
        lambda self, x: self.down(F.relu(self.up(x))) + x,
        {"up": ["relu", *PAIR["up"]], "down": ["residual", *PAIR["down"]]},
    ),
    "sum of two layers": (lambda self, x: self.same(x) + self.last(x),
                          {"same": ["residual", *TWO["same"]], "last": TWO["last"]}),
    "three in a row": (lambda self, x: F.relu(self.last(F.relu(self.down(self.up(x))))), {
        "up": ["one call with down, last"], "down": ["relu", "one call with up, last"],
        "last": ["relu", "one call with up, down"]}),
    "a value that others read as well": (
        lambda self, x: (lambda y: y - self.same(y))(self.last(x)), TWO),
    "two sums": (lambda self, x: (self.same(x) + x) + x * 2, RESIDUAL),
    "items of a list": (lambda self, x: F.relu(self.items[0](x)) - self.items[1](x),
                        {"items.0": ["relu", "one call with items.1"],
                         "items.1": ["one call with items.0"]}),
    "items of nested lists": (lambda self, x: F.relu(self.nested["a"][0](x)),
                              {"nested.a.0": ["relu"]}),
}  # fmt: skip

UNFUSED = {
    "two readers": lambda self, x: (lambda y: F.relu(y) * y)(self.same(x)),
    "read by the output": lambda self, x: (lambda y: (y, F.relu(y)))(self.same(x)),
    "activation before the sum": lambda self, x: torch.tanh(self.same(x)) + x,
    "alpha": lambda self, x: torch.add(self.same(x), x, alpha=2),
    "alpha of a method": lambda self, x: self.same(x).add(x, alpha=2),
    "a number": lambda self, x: self.same(x) + 1.0,
    "itself": lambda self, x: (lambda y: y + y)(self.same(x)),
    "other activations": lambda self, x: F.leaky_relu(F.elu(self.same(x)), 0.1),
    "subtraction": lambda self, x: self.same(x) - x,
    "training dropout": lambda self, x: F.relu(F.dropout(self.same(x), 0.5, True)),
    "hooked activation": lambda self, x: self.hooked(self.same(x)),
    "own activation class": lambda self, x: self.own(self.same(x)),
    "own dropout class": lambda self, x: torch.relu(self.always(self.same(x))),
    "the same layer twice": lambda self, x: self.same(x) - self.same(x),
    "a gate that is a number": lambda self, x: self.same(x) * 2.0,
    "its own gate": lambda self, x: (lambda y: y * y)(self.same(x)),
    "a layer that feeds itself": lambda self, x: self.same(self.same(x)),
    "relu of something else": lambda self, x: torch.tanh(self.same(F.relu(x))),
    "x in a container that is called": lambda self, x: torch.relu(self.block(x)),
}


class OwnReLU(nn.ReLU):
    def forward(self, x):
        return super().forward(x) * 2


class Always(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, True)


def hooked():
    act = nn.ReLU()
    act.register_forward_hook(lambda module, inputs, out: out * 2)
    return act


PARTS = {
    "relu": nn.ReLU, "relu_": lambda: nn.ReLU(inplace=True), "silu": nn.SiLU, "gelu": nn.GELU,
    "tanh": lambda: nn.GELU(approximate="tanh"), "drop": lambda: nn.Dropout(0.5),
    "identity": nn.Identity, "hooked": hooked, "own": OwnReLU, "always": Always,
    "items": lambda: nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)]),
    "nested": lambda: nn.ModuleDict({"a": nn.ModuleList([nn.Linear(64, 64)])}),
    "block": lambda: nn.Sequential(nn.Linear(64, 64)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_what_is_fused(tools, x, name):
    forward, notes = FUSED[name]
    model = tools.model_of(forward, **PARTS)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert tools.notes(fused) == notes
    exact = not {"gelu", "gelu_tanh", "silu"} & {n for found in notes.values() for n in found}
    for value in (x, x[0], x.reshape(2, 3, 64), x[:0]):
        expected = unfused(value)
        assert tools.same(fused(value), expected, 0.0 if exact else FITTED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUSED)
def test_low_precision_stays_as_close_to_float32(tools, x, name, dtype):
    """A fused step is rounded once and not twice, so results differ, but not from the truth."""
    model = tools.model_of(FUSED[name][0], **PARTS)
    fused, unfused = tools.convert(model).to(dtype), tools.convert(model, fuse=False).to(dtype)
    assert fused(x.to(dtype)).dtype == dtype
    truth = model.eval()(x.to(dtype).float()).detach()
    errors = [(m(x.to(dtype)).float() - truth).norm() for m in (fused, unfused)]
    assert errors[0] <= errors[1] * 1.1


@pytest.mark.parametrize("name", UNFUSED)
def test_what_is_not_fused(tools, x, name):
    model = tools.model_of(UNFUSED[name], **PARTS)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert tools.notes(fused) == {}
    with tools.count() as calls:
        out = tools.outcome(fused, x)
    assert set(calls) == {"int8_linear"}
    assert tools.same(out, tools.outcome(unfused, x))


@pytest.mark.parametrize(
    "residual",
    [torch.randn(64), torch.randn(1, 64), torch.randn(6, 1), torch.randn(6, 64).double(),
     torch.randn(6, 64).half(), torch.ones(6, 64, dtype=torch.int64), torch.randn(2, 6, 64),
     torch.tensor(2.0), torch.randn(64, 6).T, torch.randn(5, 64)],
    ids=lambda r: f"{list(r.shape)} {r.dtype}",
)  # fmt: skip
@pytest.mark.parametrize("name", ["same", "pair"])
def test_residuals_that_broadcast_or_promote(tools, x, name, residual):
    """They are known only when the call runs, which then does what ``+`` does."""
    forwards = {
        "same": lambda self, x, r: F.relu(self.same(x) + r),
        "pair": lambda self, x, r: self.down(F.relu(self.up(x))) + r,
    }
    model = tools.model_of(forwards[name])
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert any("residual" in found for found in tools.notes(fused).values())
    assert tools.same(tools.outcome(fused, x, residual), tools.outcome(unfused, x, residual))


def test_a_block_that_is_called_several_times(tools, x):
    block = tools.model_of(lambda self, x: self.down(F.relu(self.up(x))) + x)
    model = nn.Sequential(block, nn.LayerNorm(64), block)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert set(tools.notes(fused)) == {"0.up", "0.down"}
    with tools.count() as calls:
        out = fused(x)
    assert calls == ["int8_rows"] * 2
    assert torch.equal(out, unfused(x))


def test_sequential(tools, x):
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(), nn.Linear(96, 64), nn.ReLU())
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert tools.notes(fused) == {
        "0": ["relu", "one call with 3"],
        "3": ["relu", "one call with 0"],
    }
    assert torch.equal(fused(x), unfused(x))
    assert torch.equal(fused[:2](x), unfused[:2](x))


@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu, nn.GELU(approximate="tanh")])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("cls", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_transformer_layers(tools, x, cls, activation, norm_first):
    model = cls(64, 4, 128, activation=activation, norm_first=norm_first, batch_first=True)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert "one call with linear2" in tools.notes(fused)["linear1"]
    args = [x.reshape(2, 3, 64)] * (1 if cls is nn.TransformerEncoderLayer else 2)
    for model in (fused, unfused):
        assert type(model) is cls
    tolerance = 0.0 if activation == "relu" else FITTED
    assert tools.same(fused(*args), unfused(*args), tolerance)
    assert tools.same(fused(*args), fused(*args))
