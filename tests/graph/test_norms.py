"""Norms in one call with the layers around them, in every form in which a model has them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyops

# A norm is a float sum in another order than torch's: a value that crosses a rounding boundary
# by that moves one code by one step, 1/127 of its row's largest.
CLOSE = 2e-2


class WrittenNorm(nn.Module):
    """As ``LlamaRMSNorm``."""

    def __init__(self, width: int = 64, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, width))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        input_dtype = hidden_states.dtype
        hidden_states = hidden_states.to(torch.float32)
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states.to(input_dtype)


class HelpedNorm(WrittenNorm):
    """As Meta's: the formula in a method, and a float32 input."""

    def _norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return self._norm(x.float()).type_as(x) * self.weight


class PlainNorm(WrittenNorm):
    def forward(self, x: Tensor) -> Tensor:
        mean = torch.mean(torch.square(x), dim=-1, keepdim=True)
        return torch.rsqrt(self.variance_epsilon + mean) * x * self.weight


class GemmaNorm(WrittenNorm):
    """Not RMSNorm: its weight counts from 1."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return (y * (1.0 + self.weight.float())).type_as(x)


class FirstNorm(WrittenNorm):
    """Over another dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(0, keepdim=True) + 1e-6))


def layer_norm() -> nn.LayerNorm:
    norm = nn.LayerNorm(64, 1e-4)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return norm


PARTS = {
    "layer": layer_norm,
    "bare": lambda: nn.LayerNorm(64, elementwise_affine=False),
    "unbiased": lambda: nn.LayerNorm(64, bias=False),
    "rms": lambda: nn.RMSNorm(64, 1e-5),
    "rms_default": lambda: nn.RMSNorm(64),
    "written": WrittenNorm,
    "helped": HelpedNorm,
    "plain": PlainNorm,
    "gemma": GemmaNorm,
    "first": FirstNorm,
    "group": lambda: nn.LayerNorm((6, 64)),
    "weight": lambda: nn.Parameter(torch.linspace(0.5, 2, 64)),
    "shift": lambda: nn.Parameter(torch.linspace(-1, 1, 64)),
    "drop": lambda: nn.Dropout(0.5),
}


def forward(self, x):
    """``norm`` between a layer with a residual and two that read it."""
    y = self.norm(self.same(x) + x)
    return self.down(F.relu(self.up(y))) + y


def around(tools, norm):
    model = tools.model_of(forward, **PARTS)
    type(model).norm = norm
    return model


def inline(self, x):
    h = x.to(torch.float32)
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
    return self.weight * h.to(x.dtype)


FORMS = {
    "nn.LayerNorm": (lambda self, x: self.layer(x), "LayerNorm"),
    "nn.LayerNorm without weight": (lambda self, x: self.bare(x), "LayerNorm"),
    "nn.LayerNorm without bias": (lambda self, x: self.unbiased(x), "LayerNorm"),
    "F.layer_norm": (lambda self, x: F.layer_norm(x, (64,), self.weight, self.shift, 1e-6),
                     "LayerNorm"),
    "F.layer_norm of a list": (lambda self, x: F.layer_norm(x, [64], bias=self.shift), "LayerNorm"),
    "nn.RMSNorm": (lambda self, x: self.rms(x), "RMSNorm"),
    "nn.RMSNorm without eps": (lambda self, x: self.rms_default(x), "RMSNorm"),
    "F.rms_norm": (lambda self, x: F.rms_norm(x, (64,), self.weight, 1e-6), "RMSNorm"),
    "a class of its own": (lambda self, x: self.written(x), "RMSNorm"),
    "a class with a method": (lambda self, x: self.helped(x), "RMSNorm"),
    "a class that casts nothing": (lambda self, x: self.plain(x), "RMSNorm"),
    "written out": (inline, "RMSNorm"),
    "with dropout": (lambda self, x: self.drop(self.layer(self.drop(x))), "LayerNorm"),
}  # fmt: skip


def notes_of(name: str) -> dict[str, list[str]]:
    return {
        "same": ["residual", "one call with up, down"],
        "up": [f"{name} + quantize", "relu", "one call with same, down"],
        "down": ["residual", "one call with same, up"],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_forms(tools, x, form, dtype):
    norm, name = FORMS[form]
    model = around(tools, norm)
    fused, unfused = (tools.convert(model, fuse).to(dtype) for fuse in (True, False))
    assert tools.notes(fused) == notes_of(name)
    for value in (x, x[0], x.reshape(2, 3, 64), x[:0]):
        value = value.to(dtype)
        with torch.no_grad(), tools.count() as calls:
            out = fused(value)
        assert calls == ["int8_rows"]
        tolerance = CLOSE if dtype is torch.float32 else 6e-2
        assert tools.same(out, unfused(value).detach(), tolerance)


def test_a_norm_that_is_written_out_is_not_computed_twice(tools, x):
    fused = tools.convert(around(tools, inline))
    source = next(iter(pyops.graph.graph_of(fused).variants.values())).source
    assert "rsqrt" not in source
    assert "pow" not in source


def test_a_norm_that_is_written_out_and_read_by_nobody_in_a_region(tools, x):
    def forward(self, x):
        h = self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return F.relu(self.same(torch.tanh(h)))

    model = tools.model_of(forward, **PARTS)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert tools.notes(fused) == {"same": ["relu"]}
    with torch.no_grad():
        assert torch.equal(fused(x), unfused(x))


NO_NORMS = {
    "a weight that counts from 1": lambda self, x: self.gemma(x),
    "over another dimension": lambda self, x: self.first(x),
    "over two dimensions": lambda self, x: self.group(x),
    "over a part of the row": lambda self, x: F.layer_norm(x.unflatten(-1, (2, 32)), (32,)).flatten(
        -2
    ),
}


@pytest.mark.parametrize("name", NO_NORMS)
def test_what_is_no_norm_of_rows(tools, x, name):
    model = around(tools, NO_NORMS[name])
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert not any("Norm" in note for notes in tools.notes(fused).values() for note in notes)
    with torch.no_grad():
        assert torch.equal(fused(x), unfused(x))


@pytest.mark.parametrize("form", ["nn.LayerNorm", "F.layer_norm", "a class of its own",
                                  "written out", "F.rms_norm"])  # fmt: skip
def test_parameters_are_read_when_the_model_runs(tools, x, form):
    model = around(tools, FORMS[form][0])
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    with torch.no_grad():
        before = fused(x)
        for changed in (fused, unfused):
            for name, parameter in changed.named_parameters():
                if name.split(".")[-1] in ("weight", "shift"):
                    parameter.copy_(parameter.flip(0) * 3)
        assert not tools.same(fused(x), before, 0.1)
        assert tools.same(fused(x), unfused(x), CLOSE)


CHANGES = {
    "eps": lambda model: setattr(model.layer, "eps", 100.0),
    "another norm": lambda model: setattr(model, "layer", nn.Identity()),
    "a hook": lambda model: model.layer.register_forward_hook(lambda module, args, out: out * 2),
    "no weight": lambda model: setattr(model.layer, "weight", None),
    "a weight of another dtype": lambda model: model.layer.double(),
    "a forward of its own": lambda model: setattr(model.layer, "forward", torch.tanh),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_norm_that_is_changed_afterwards(tools, x, change):
    model = around(tools, lambda self, x: self.layer(x))
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    with torch.no_grad():
        before = tools.outcome(fused, x)
        for changed in (fused, unfused):
            CHANGES[change](changed)
        out = tools.outcome(fused, x)
        assert not tools.same(out, before, CLOSE)
        assert tools.same(out, tools.outcome(unfused, x), CLOSE)


def test_an_eps_of_a_class_that_is_changed_afterwards(tools, x):
    model = around(tools, lambda self, x: self.written(x))
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    for changed in (fused, unfused):
        changed.written.variance_epsilon = 100.0
    with torch.no_grad():
        assert torch.equal(fused(x), unfused(x))


def test_parameters_that_need_a_gradient(tools, x):
    """The layer behind the norm refuses then, fused or not."""
    model = around(tools, lambda self, x: self.layer(x))
    for fuse in (True, False):
        converted = tools.convert(model, fuse).requires_grad_(True)
        with pytest.raises(RuntimeError, match="has no gradient but its input requires grad"):
            converted(x)
        with torch.no_grad():
            converted(x)


def test_a_residual_that_does_not_fit(tools, x):
    """The call then goes step by step, and does what the model says."""

    def forward(self, x, r):
        return self.down(F.relu(self.up(self.layer(self.same(x) + r))))

    model = tools.model_of(forward, **PARTS)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    for residual in (torch.randn(64), torch.randn(6, 1), torch.randn(6, 64).double(), 2.0,
                     torch.randn(2, 6, 64), torch.randn(5, 64)):  # fmt: skip
        with torch.no_grad(), tools.count() as calls:
            out = tools.outcome(fused, x, residual)
        assert "int8_rows" not in calls
        with torch.no_grad():
            assert tools.same(out, tools.outcome(unfused, x, residual))


def test_double_inputs_are_refused_as_without_fusion(tools, x):
    model = around(tools, lambda self, x: self.layer(x))
    for fuse in (True, False):
        with torch.no_grad(), pytest.raises(TypeError, match=r"int8_linear: x must be torch\.f"):
            tools.convert(model, fuse)(x.double())
