"""Calls that a graph does not cover run as written, and give what the unfused model gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module

import pyops


def mlp(self, x):
    return self.down(F.relu(self.up(x)))


def everything(self, x, residual=None, scale=None, double=False, *more, factor=1.0, **options):
    y = self.down(F.relu(self.up(x if scale is None else x * scale)))
    if residual is not None:
        y = y + residual
    for value in (*more, *options.values()):
        y = y + value
    return y * (2 if double else 1) * factor


R, S = torch.randn(6, 64), torch.randn(6, 64)
CALLS = {
    "x": ((), {}, True),
    "residual": ((R,), {}, True),
    "residual=": ((), {"residual": R}, True),
    "residual=None": ((), {"residual": None}, True),
    "both": ((R, S), {}, True),
    "both by name": ((), {"scale": S, "residual": R}, True),
    "scale alone": ((None, S), {}, True),
    "a scale that is a number": ((None, 2.0), {}, False),
    "a residual that is a number": ((1.5,), {}, False),
    "flag at its default": ((None, None, False), {}, True),
    "flag": ((None, None, True), {}, False),
    "flag=": ((), {"double": True}, False),
    "flag as a tensor": ((), {"double": torch.tensor(True)}, False),
    "factor at its default": ((), {"factor": 1.0}, None),
    "factor": ((), {"factor": 2.0}, False),
    "factor as a tensor": ((), {"factor": torch.tensor(2.0)}, False),
    "more": ((R, S, False, R), {}, False),
    "options": ((), {"other": R}, False),
    "a number as an option": ((), {"other": 2.0}, False),
    "twice": ((R,), {"residual": R}, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_way_to_pass_arguments(tools, x, name):
    args, kwargs, covered = CALLS[name]
    model = tools.model_of(everything)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    with tools.count() as calls:
        out = tools.outcome(fused, x, *args, **kwargs)
    assert tools.same(out, tools.outcome(unfused, x, *args, **kwargs))
    assert covered is None or (calls == ["int8_rows"]) == covered


@pytest.mark.parametrize("args", [(), (None,), (3,), ("x",)])
def test_bad_calls_raise_as_before(tools, args):
    model = tools.model_of(everything)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    for kwargs in ({}, {"residual": R}):
        assert tools.outcome(fused, *args, **kwargs) is tools.outcome(unfused, *args, **kwargs)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        fused(residual=R)


def with_options(self, x):
    y = self.act(self.same(x)) if self.kind == "act" else self.function(self.same(x))
    for layer in self.layers:
        y = self.drop(layer(y))
    return y + x if self.add else y


OPTIONS = {
    "act": nn.ReLU, "kind": lambda: "act", "function": lambda: F.elu, "add": lambda: True,
    "drop": nn.Dropout, "layers": lambda: nn.ModuleList([nn.Linear(64, 64)]),
}  # fmt: skip


def hooked(part):
    def add(model):
        model.get_submodule(part).register_forward_hook(lambda module, inputs, out: out * 2)

    return add


def pre_hooked(part):
    def add(model):
        model.get_submodule(part).register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)

    return add


def replaced(name, make):
    return lambda model: setattr(model, name, make())


CHANGES = {
    "flag": replaced("add", lambda: False),
    "text": replaced("kind", lambda: "function"),
    "function": lambda model: (setattr(model, "kind", "f"), setattr(model, "function", F.tanh)),
    "activation": replaced("act", nn.Tanh),
    "layer": replaced("same", lambda: nn.Linear(64, 64).requires_grad_(False)),
    "no layer": replaced("same", nn.Identity),
    "item": lambda model: model.layers.__setitem__(0, nn.Tanh()),
    "appended": lambda model: model.layers.append(nn.Tanh()),
    "deleted": lambda model: model.layers.__delitem__(0),
    "another list": replaced("layers", nn.ModuleList),
    **{
        f"hook on {part or 'itself'}": hooked(part)
        for part in ("same", "act", "layers.0", "drop", "")
    },
    **{f"pre-hook on {part or 'itself'}": pre_hooked(part) for part in ("same", "act", "")},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_is_changed_afterwards(tools, x, name):
    model = tools.model_of(with_options, **OPTIONS)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    before = fused(x)
    for changed in (fused, unfused):
        torch.manual_seed(3)
        CHANGES[name](changed)
    assert tools.same(fused(x), unfused(x))
    assert not torch.equal(fused(x), before)


def test_a_hook_that_is_removed_again(tools, x):
    model = tools.convert(tools.model_of(mlp))
    expected = model(x)
    handle = model.up.register_forward_hook(lambda module, inputs, out: out * 2)
    assert not torch.equal(model(x), expected)
    handle.remove()
    with tools.count() as calls:
        assert torch.equal(model(x), expected)
    assert calls == ["int8_rows"]


def test_a_sequential_that_grows(tools, x):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    for changed in (fused, unfused):
        changed.append(nn.Tanh())
    assert torch.equal(fused(x), unfused(x))
    for changed in (fused, unfused):
        changed.insert(1, changed[2])
    assert torch.equal(fused(x), unfused(x))


@pytest.mark.parametrize("register", ["register_module_forward_hook",
                                      "register_module_forward_pre_hook"])  # fmt: skip
def test_global_hooks_see_every_layer(tools, x, register):
    model = tools.convert(tools.model_of(mlp))
    seen = []
    handle = getattr(torch_module, register)(lambda module, *_: seen.append(module))
    try:
        model(x)
    finally:
        handle.remove()
    assert {model.up, model.down, model} == set(seen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tools, x, dtype):
    model = tools.model_of(everything)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    with torch.autocast("cpu", dtype=dtype):
        out = fused(x, residual=R)
        assert tools.same(out, unfused(x, residual=R))
        assert out.dtype == torch.float32  # bfloat16 + float32
        with tools.count() as calls:
            out = fused(x, residual=R.to(dtype))
        assert calls == ["int8_linear"] * 2
        assert tools.same(out, unfused(x, residual=R.to(dtype)))
    with torch.autocast("cpu", dtype=dtype, enabled=False):
        assert tools.same(fused(x), unfused(x))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_grad_modes(tools, x, mode):
    model = tools.model_of(everything)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    with mode():
        assert torch.equal(fused(x, R), unfused(x, R))
        assert not fused(x, R).requires_grad


def test_an_input_that_requires_grad(tools, x):
    fused = tools.convert(tools.model_of(everything))
    x = x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="Int8Linear has no gradient but its input requires"):
        fused(x)
    with torch.no_grad():
        fused(x)


def test_train_mode_raises(tools, x):
    fused = tools.convert(tools.model_of(mlp))
    with pytest.raises(RuntimeError, match="is for inference but it is in train mode"):
        fused.train()(x)
    fused.eval()(x)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casts(tools, x, cast):
    model = tools.model_of(mlp)
    fused, unfused = (
        getattr(tools.convert(model), cast)(),
        getattr(tools.convert(model, False), cast)(),
    )
    value = getattr(x, cast)()
    assert tools.same(tools.outcome(fused, value), tools.outcome(unfused, value))


def test_class_and_state_are_those_of_the_unfused_model(tools, x):
    model = tools.model_of(everything)
    fused, unfused = tools.convert(model), tools.convert(model, fuse=False)
    assert type(fused) is type(model)
    assert isinstance(fused, type(model))
    names = [name for name, _ in model.named_modules()]
    assert [n for n, _ in fused.named_modules()] == [n for n, _ in unfused.named_modules()] == names
    assert list(fused.state_dict()) == list(unfused.state_dict())
    assert [n for n, _ in fused.named_parameters()] == [n for n, _ in unfused.named_parameters()]
    other = tools.convert(tools.model_of(everything))
    other.load_state_dict({k: v.flip(0) for k, v in fused.state_dict().items()})
    unfused.load_state_dict(other.state_dict())
    assert torch.equal(other(x), unfused(x))
    assert pyops.explain(fused).rows[0].name == "up"
