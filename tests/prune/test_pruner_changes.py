"""Pruner where the model, the schedule or the state is not what it was: errors, and no no-op."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyops
from pyops.prune import CubicSchedule, Pruner


class Said:
    """A schedule that says these shares, one a step."""

    def __init__(self, *shares: float) -> None:
        self.shares = shares

    def due(self, step: int) -> bool:
        return step <= len(self.shares)

    def sparsity(self, step: int, final: float) -> float:
        return self.shares[step - 1]

    def done(self, step: int) -> bool:
        return step >= len(self.shares)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))


def refused(pruner, message, error=ValueError, call=None):
    """The whole message, and nothing is changed."""
    before = copy.deepcopy(pruner.model.state_dict())
    steps = pruner.steps
    with pytest.raises(error) as found:
        (call or pruner.step)()
    assert str(found.value) == f"Pruner: {message}"
    after = pruner.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert pruner.steps == steps


WAY_OUT = (
    "what is gone cannot come back (pyops.prune.unmask makes ordinary weights of it that are 0)"
)


def test_a_final_sparsity_below_what_is_reached():
    model = pyops.prune(net(), 0.8)
    for scope, message in (
        ("layer", "'0' lacks 80 units of pattern 'unstructured' already, and sparsity=0.5 is 50: "),
        (
            "global",
            "the Sequential lacks 160 units of pattern 'unstructured' already, and sparsity=0.5 "
            "is 100: ",
        ),
    ):
        with pytest.raises(ValueError) as found:  # noqa: PT011 (the message is compared)
            Pruner(model, 0.5, schedule=CubicSchedule(0, 2), scope=scope)
        assert str(found.value) == f"Pruner: {message}{WAY_OUT}"


def test_a_model_that_is_pruned_already_waits_for_the_schedule():
    model = pyops.prune(net(), 0.5)
    before = [layer.weight_mask.clone() for layer in (model[0], model[2])]
    pruner = Pruner(model, 0.8, schedule=Said(0.2, 0.5, 0.6, 0.8))
    assert [(pruner.step(), round(pruner.sparsity, 9)) for _ in range(5)] == [
        (False, 0.5),
        (False, 0.5),
        (True, 0.6),
        (True, 0.8),
        (False, 0.8),
    ]
    for layer, mask in zip((model[0], model[2]), before, strict=True):
        assert not bool((layer.weight_mask & ~mask).any())


def test_schedules_that_fall_or_leave_the_range():
    pruner = Pruner(net(), 0.8, schedule=Said(0.5, 0.4))
    pruner.step()
    refused(
        pruner,
        "the schedule says a sparsity of 0.4 at step 2 after 0.5: what is gone cannot come back",
    )
    for share in (0.9, -0.1, float("nan")):
        pruner = Pruner(net(), 0.8, schedule=Said(share))
        refused(
            pruner,
            f"the schedule says a sparsity of {share} at step 1, expected at least 0 and at most "
            "the final 0.8",
        )
    with pytest.raises(ValueError) as found:  # noqa: PT011
        Pruner(net(), 0.5, schedule=CubicSchedule(0, 2, initial=0.9))
    assert str(found.value) == (
        "Pruner: the schedule starts with a sparsity of 0.9, expected at most the final 0.5"
    )


def test_a_layer_by_itself():
    with pytest.raises(ValueError) as found:  # noqa: PT011
        Pruner(nn.Linear(8, 8), 0.5, schedule=CubicSchedule(0, 2))
    assert str(found.value) == (
        "Pruner: the model is a Linear itself, which cannot become a masked layer in place: put it "
        "into an nn.Sequential"
    )
    masked = pyops.prune(nn.Linear(8, 8), 0.25)
    pruner = Pruner(masked, 0.5, schedule=Said(0.5))
    pruner.step()
    assert masked.sparsity == 0.5


def test_layers_that_were_unmasked_or_replaced():
    model = net()
    pruner = Pruner(model, 0.5, schedule=Said(0.2, 0.5))
    pruner.step()
    masked = model[0]
    pyops.prune.unmask(model, inplace=True)
    message = "'0' is a Linear now, and no longer the MaskedLinear that was pruned: make another "
    refused(pruner, message + "Pruner")
    refused(pruner, message + "Pruner", call=lambda: pruner.sparsity)
    refused(pruner, message + "Pruner", call=pruner.state_dict)
    model[0] = masked
    del model[2]
    refused(pruner, message.replace("'0' is a Linear", "'2' is nothing") + "Pruner")


def test_a_weight_that_is_no_parameter_any_more():
    model = net()
    pruner = Pruner(model, 0.5, schedule=Said(0.2, 0.5))
    model[0].weight = nn.Parameter(torch.zeros(4, 10))
    refused(pruner, "the weight of '0' is a Parameter of [4, 10] now, expected a Parameter of "
            "[10, 10]")  # fmt: skip
    model[0].weight = nn.Parameter(torch.zeros(10, 10))
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match=r"^Pruner: '0' is a ParametrizedMaskedLinear now|"
                       r"^Pruner: the weight of '0' is a Tensor of \[10, 10\] now"):  # fmt: skip
        pruner.step()


def replaced(model, how):
    """Other values in other Parameters."""
    if how == "assign":
        state = {key: value.clone() for key, value in model.state_dict().items()}
        for key in ("0.weight", "2.weight"):
            state[key] = state[key].flip(0)
        model.load_state_dict(state, assign=True)
        return
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.mark.parametrize("how", ["assign", "to"])
def test_parameters_that_were_replaced(how):
    """Without an optimizer it prunes what the model has now, with one that has to hold it."""
    models = [net(), net()]
    optimizer = torch.optim.SGD(models[1].parameters(), 0.1, momentum=0.9)
    pruners = [
        Pruner(model, 0.5, schedule=Said(0.5), optimizer=one)
        for model, one in zip(models, (None, optimizer), strict=True)
    ]
    for model in models:
        weight = model[0].weight
        replaced(model, how)
        assert model[0].weight is not weight
    expected = pyops.prune(pyops.prune.unmask(models[0]), 0.5).state_dict()
    assert pruners[0].step()
    assert all(torch.equal(one, expected[key]) for key, one in models[0].state_dict().items())
    refused(
        pruners[1],
        "the weight of '0' is another Parameter than the optimizer holds: it was replaced "
        "(load_state_dict(assign=True), .to()); make optimizer and pruner of the model as it is "
        "now",
    )


def test_ties_that_assigning_loosens():
    model = net()
    model[2].weight = model[0].weight
    pruner = Pruner(model, 0.5, schedule=Said(0.5))
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    refused(
        pruner,
        "'0' and '2' no longer share their weight (load_state_dict(assign=True) unties): tie it "
        "again",
    )
    model[2].weight = model[0].weight
    assert pruner.step()
    assert torch.equal(model[0].weight_mask, model[2].weight_mask)
