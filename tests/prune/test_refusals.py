"""What prune, Pruner and regularizer refuse: the whole message, and nothing is changed."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

import pyops
from pyops.prune import CubicSchedule, Pruner

X = torch.randn(5, 8)
CRITERIA = "'gradient', 'l1', 'l2', 'random', 'sparsegpt', 'wanda'"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6))


def loss(model, batch):
    return model(batch).sum()


BAD = [
    ({"sparsity": 0}, ValueError, "sparsity is 0, expected above 0 and below 1"),
    ({"sparsity": 1.0}, ValueError, "sparsity is 1.0, expected above 0 and below 1"),
    ({"sparsity": 90}, ValueError, "sparsity is 90, expected above 0 and below 1"),
    ({"sparsity": float("nan")}, ValueError, "sparsity is nan, expected above 0 and below 1"),
    ({"sparsity": "0.9"}, TypeError, "sparsity is a str, expected a float"),
    ({"sparsity": True}, TypeError, "sparsity is a bool, expected a float"),
    ({"pattern": "4:2"}, ValueError,
     "pattern is '4:2', expected 1 <= N < M and T of at least 1 in 'N:MxT'"),
    ({"pattern": "2:4", "sparsity": 0.9}, ValueError,
     "pattern '2:4' has sparsity 0.5, which contradicts sparsity=0.9"),
    ({"criterion": "L1"}, ValueError, f"criterion is 'L1', expected one of {CRITERIA}"),
    ({"criterion": ["l1"]}, ValueError, f"criterion is ['l1'], expected one of {CRITERIA}"),
    ({"scope": "model"}, ValueError, "scope is 'model', expected 'layer' or 'global'"),
    ({"scope": "global", "pattern": "2:4"}, ValueError,
     "scope='global' compares layers, but pattern '2:4' removes the same share everywhere"),
    ({"generator": torch.Generator()}, ValueError,
     "generator= goes with criterion='random', not 'l1'"),
    ({"generator": 7, "criterion": "random"}, TypeError,
     "generator is a int, expected a torch.Generator"),
    ({"pattern": "block:64x64"}, ValueError,
     "nothing to prune in Sequential: every layer stays dense:\n"
     "  0: too small: 8 x 8 weights, and of 0.9 of the units of 'block:64x64' none would go\n"
     "  2: too small: 6 x 8 weights, and of 0.9 of the units of 'block:64x64' none would go"),
]  # fmt: skip
BAD_OF_PRUNE = [
    ({"sparsity": 0.9, "retain": 0.1}, ValueError,
     "both sparsity=0.9 and retain=0.1 are given, expected one"),
    ({"retain": 0.0}, ValueError, "retain is 0.0, expected above 0 and below 1"),
    ({"retain": 0.1, "pattern": "2:4"}, ValueError,
     "pattern '2:4' has sparsity 0.5, which contradicts retain=0.1"),
    ({"criterion": "wanda"}, ValueError, "criterion 'wanda' needs calibration="),
    ({"criterion": "gradient", "calibration": [X]}, ValueError, "criterion 'gradient' needs loss="),
    ({"criterion": "gradient", "calibration": [X], "loss": 3}, TypeError,
     "loss is a int, expected a function (model, batch)"),
    ({"calibration": [X]}, ValueError,
     "calibration= does not go with criterion 'l1': 'l1' looks at no data"),
    ({"forward": loss}, ValueError,
     "forward= does not go with criterion 'l1': 'l1' looks at no data"),
    ({"criterion": "gradient", "calibration": [X], "loss": loss, "forward": loss}, ValueError,
     "forward= does not go with criterion 'gradient': loss= calls the model"),
    ({"criterion": "wanda", "calibration": []}, ValueError, "calibration holds no batch"),
    ({"criterion": "wanda", "calibration": X}, TypeError,
     "calibration is a Tensor, expected an iterable of batches: [tensor], or tensor.split(size)"),
    ({"criterion": "gradient", "calibration": X, "loss": loss}, TypeError,
     "calibration is a Tensor, expected an iterable of batches: [tensor], or tensor.split(size)"),
    ({"criterion": "gradient", "calibration": [], "loss": loss}, ValueError,
     "calibration holds no batch"),
    ({"criterion": "wanda", "calibration": ["cat.png"]}, TypeError,
     "a calibration batch must be a Tensor, a tuple of positional arguments or a dict of keywords, "
     "but is str: pass forward=lambda model, batch: ..."),
    ({"criterion": "wanda", "calibration": [X], "forward": lambda m, b: None}, ValueError,
     "forward= does not call the model it is given"),
    ({"criterion": "wanda", "calibration": [X / 0]}, ValueError,
     "the input of '0' holds NaN or Inf"),
    ({"criterion": "sparsegpt", "calibration": [X / 0]}, ValueError,
     "the input of '0' holds NaN or Inf"),
    ({"criterion": "gradient", "calibration": [X], "loss": lambda m, b: 1.0}, TypeError,
     "loss returned a float, expected a Tensor"),
    ({"criterion": "gradient", "calibration": [X], "loss": lambda m, b: m(b)}, ValueError,
     "loss returned [5, 6], expected a single value"),
    ({"criterion": "gradient", "calibration": [X], "loss": lambda m, b: b.sum()}, ValueError,
     "loss returned a value that depends on no weight"),
    ({"criterion": "gradient", "calibration": [X / 0], "loss": loss}, ValueError,
     "the gradient of '0' holds NaN or Inf"),
    ({"criterion": "wanda", "scope": "global", "calibration": [X]}, ValueError,
     "scope='global' compares layers, but scores of criterion 'wanda' differ from layer to layer"),
    ({"example_inputs": X}, ValueError, "pattern 'unstructured' takes no example_inputs="),
]  # fmt: skip
BAD_OF_PRUNER = [
    ({"criterion": "wanda"}, ValueError,
     "criterion 'wanda' needs calibration data: use pyops.prune"),
    ({"schedule": 3}, TypeError, "schedule is a int, which has no due()"),
    ({"optimizer": "sgd"}, TypeError, "optimizer is a str, expected a torch.optim.Optimizer"),
    ({"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters())}, ValueError,
     "optimizer holds none of the 2 weights to prune: make it of this model's parameters"),
]  # fmt: skip


def refused(call, model, error, message):
    before = copy.deepcopy(model)
    with pytest.raises(error) as found:
        call()
    assert str(found.value) == message
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    for one, two in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.requires_grad == two.requires_grad
        assert one.grad is None
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for one, two in zip(model.modules(), before.modules(), strict=True):
        assert not one._forward_pre_hooks
        assert vars(one).keys() == vars(two).keys()  # no record


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("keywords", "error", "message"), [*BAD, *BAD_OF_PRUNE])
def test_prune(keywords, error, message, inplace):
    model = net()
    refused(
        lambda: pyops.prune(model, **keywords, inplace=inplace), model, error, f"prune: {message}"
    )


@pytest.mark.parametrize(("keywords", "error", "message"), [*BAD, *BAD_OF_PRUNER])
def test_pruner(keywords, error, message):
    model = net()
    keywords = {"schedule": CubicSchedule(0, 10), **keywords}
    refused(lambda: Pruner(model, **keywords), model, error, f"Pruner: {message}")


def test_models_that_are_refused():
    for call in (
        lambda model: pyops.prune(model, 0.5),
        lambda model: Pruner(model, 0.5, schedule=CubicSchedule(0, 1)),
    ):
        with pytest.raises(TypeError, match=r"takes an nn\.Module, but got str"):
            call("model")
        with pytest.raises(TypeError, match="is a wrapper"):
            call(nn.DataParallel(net()))
        with pytest.raises(TypeError, match="is compiled already"):
            call(torch.compile(net()))
        with pytest.raises(ValueError, match="0 is an Int8Linear already"):
            call(pyops.quantize(nn.Sequential(nn.Linear(64, 64))))
        message = "nothing to prune in ReLU: it holds none of nn.Conv1d, nn.Conv2d, nn.Linear"
        with pytest.raises(ValueError, match=re.escape(message)):
            call(nn.ReLU())


def test_patterns_of_include_and_strict():
    model = net()
    for keywords, message in (
        ({"include": "fc"}, "include='fc' matches nothing in the model"),
        (
            {"include": nn.ReLU},
            "include=ReLU matches only ReLU: no layer in it can be pruned",
        ),
        ({"exclude": 3}, "exclude= takes names, globs or types, but got 3 (int)"),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            pyops.prune(model, 0.5, **keywords)
        assert str(error.value) == message
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="strict=True") as found:
        pyops.prune(model, 0.5, strict=True)
    assert str(found.value) == (
        "strict=True and 1 layer(s) would stay dense:\n"
        "  0: has hooks, which a replacement would lose"
    )


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("criterion", ["wanda", "gradient"])
def test_a_layer_that_calibration_does_not_reach(criterion):
    data = {"calibration": [X], **({"loss": loss} if criterion == "gradient" else {})}
    new = pyops.prune(Branch(), 0.5, criterion=criterion, **data)
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert rows["used"].after == "MaskedLinear"
    assert rows["unused"].after == "Linear"
    assert rows["unused"].reason == "calibration does not reach it"
    with pytest.raises(ValueError, match="unused: calibration does not reach it"):
        pyops.prune(Branch(), 0.5, criterion=criterion, strict=True, **data)


def test_sparsegpt_with_units_across_groups():
    model = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2))
    with pytest.raises(ValueError, match="sparsegpt solves") as error:
        pyops.prune(
            model,
            0.5,
            pattern="block:2x1",
            criterion="sparsegpt",
            calibration=[torch.ones(1, 4, 9)],
        )
    assert str(error.value) == (
        "prune: sparsegpt solves the 2 groups of '0' by themselves, and units of pattern "
        "'block:2x1' do not fit in their 3 outputs"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, 5), ValueError, "begin is 5 and end is 5, expected 0 <= begin < end"),
        ((-1, 5), ValueError, "begin is -1 and end is 5, expected 0 <= begin < end"),
        ((0, 5, 0), ValueError, "every is 0, expected at least 1"),
        ((0, 5, 1, 1.0), ValueError, "initial is 1.0, expected at least 0 and below 1"),
        ((0, 5.0), TypeError, "end is a float, expected an int"),
        ((0, 5, 1, "0"), TypeError, "initial is a str, expected a float"),
    ],
)
def test_schedules(arguments, error, message):
    with pytest.raises(error) as found:
        CubicSchedule(*arguments)
    assert str(found.value) == f"CubicSchedule: {message}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("model",), TypeError, "regularizer takes an nn.Module, but got str"),
        (
            (nn.Linear(2, 2), "l0"),
            ValueError,
            "regularizer: kind is 'l0', expected one of 'group_lasso', 'l1'",
        ),
        (
            (nn.ReLU(),),
            ValueError,
            "regularizer: nothing to prune in ReLU: it holds none of nn.Conv1d, nn.Conv2d, "
            "nn.Linear",
        ),
    ],
)
def test_regularizer(arguments, error, message):
    with pytest.raises(error) as found:
        pyops.prune.regularizer(*arguments)
    assert str(found.value) == message
