"""What quantize refuses, and its name, which is a function and a package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyops


def make():
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            "it holds no layer that has an int8",
        ),
        (lambda: nn.Linear(4, 4), r"every layer stays in float:\s+\(the model\): too small"),
        (lambda: nn.Sequential(nn.Linear(64, 64).double()), "0: weight is float64"),
        (lambda: nn.Sequential(nn.MultiheadAttention(64, 4)), "0.out_proj: nn.Multihead"),
    ],
)
def test_nothing_to_replace_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        pyops.quantize(model())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_is_no_plain_module():
    with pytest.raises(TypeError, match=r"quantize takes an nn\.Module, but got function"):
        pyops.quantize(lambda x: x)
    scripted = torch.jit.script(nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(TypeError, match="is a ScriptModule: quantize the Python model"):
        pyops.quantize(scripted)
    with pytest.raises(TypeError, match=r"^inner \(.*is a ScriptModule"):
        pyops.quantize(nn.ModuleDict({"inner": scripted}))
    with pytest.raises(TypeError, match="is compiled already: quantize first"):
        pyops.quantize(torch.compile(make()))
    compiled = make()
    compiled.compile()
    with pytest.raises(TypeError, match="is compiled already: quantize first"):
        pyops.quantize(compiled)
    with pytest.raises(TypeError, match=r"is a wrapper: quantize its \.module"):
        pyops.quantize(nn.DataParallel(make()))


def test_what_cannot_be_copied():
    model = make()
    model.handle = open(__file__)
    try:
        with pytest.raises(TypeError, match=r"cannot be copied .*inplace=True converts"):
            pyops.quantize(model)
        pyops.quantize(model, inplace=True)
    finally:
        model.handle.close()


def test_keywords_of_later_workflows_are_not_accepted():
    with pytest.raises(TypeError, match="sparsity"):
        pyops.quantize(make(), sparsity=None)


def test_progress_shows_on_stderr(capsys):
    pyops.quantize(make(), progress=True)
    captured = capsys.readouterr()
    assert "packing" in captured.err
    assert captured.out == ""
    pyops.quantize(make())
    assert capsys.readouterr().err == ""


def test_the_name_is_a_function_and_a_package():
    import inspect
    import pickle

    import pyops.quantize.measure as module

    assert module.__name__ == "pyops.quantize.measure"
    assert "example_inputs" in inspect.signature(pyops.quantize).parameters
    assert pickle.loads(pickle.dumps(pyops.quantize)) is pyops.quantize
    assert "Int8Linear" in repr(pyops.quantize(make()))
