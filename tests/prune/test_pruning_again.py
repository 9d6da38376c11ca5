"""Models that are masked already: what is gone counts, stays gone, and has to fit the pattern."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import MaskedConv2d, MaskedLinear
from pyops.prune.criteria import CRITERIA
from pyops.prune.matrix import matrix_of, spread, unit_counts, weight_of
from pyops.prune.patterns import pattern_of
from pyops.prune.patterns.share_out import share_out

PATTERNS = {"unstructured": 0.6, "block:4x2": 0.6, "block:2x3": 0.6, "2:4": 0.5, "1:4x4": 0.75}
X = [torch.randn(12, 8, 9, 9), torch.randn(12, 8, 9, 9)]


def uneven_units(shape, rows, cols):
    """Half of the units: whole rows and columns of them, so a group of outputs or of 128 columns
    lacks more than its share."""
    above, beside = unit_counts(shape, rows, cols)
    generator = torch.Generator().manual_seed(1)
    keep = torch.rand(above, beside, generator=generator) > torch.linspace(0, 0.3, above)[:, None]
    keep[: max(above // 5, 1)] = False
    keep[:, -max(beside // 3, 1) :] = False
    keep[-1] = True
    return spread(keep, rows, cols, shape)


def uneven_groups(shape, n, m, rows):
    """N to M of every M are left."""
    generator = torch.Generator().manual_seed(1)
    above, beside = unit_counts(shape, rows, m)
    ranks = torch.rand(above, beside, m, generator=generator).argsort(2).argsort(2)
    left = torch.randint(n, m + 1, (above, beside, 1), generator=generator)
    mask = (ranks < left).flatten(1)[:, : shape[1]]
    mask[:, shape[1] // m * m :] = True
    return spread(mask, rows, 1, shape)


def masked_model(name):
    """Two layers of which the first lacks nearly half, unevenly."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 24, 7, groups=2), nn.Conv2d(24, 8, 3), nn.Linear(8, 10)]
    pattern = pattern_of(name)
    shape = matrix_of(layers[0].weight).shape
    if pattern.sparsity is None:
        mask = uneven_units(shape, pattern.rows, pattern.cols)
    else:
        mask = uneven_groups(shape, pattern.n, pattern.m, pattern.rows)
    layers[0] = MaskedConv2d.from_float(layers[0], weight_of(mask, layers[0].weight))
    return nn.Sequential(*layers[:2], nn.Flatten(), layers[2]), pattern


def data_of(criterion):
    data = {"calibration": X} if CRITERIA[criterion].data else {}
    if CRITERIA[criterion].data == "loss":
        data["loss"] = lambda m, x: m(x).square().sum()
    return data


def weights_in(model, index):
    return matrix_of(model[index].weight_mask)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_is_gone_counts_and_stays_gone(criterion, name, scope):
    """As many weights go as of a model that lacked none."""
    model, pattern = masked_model(name)
    share = None if pattern.sparsity else PATTERNS[name]
    options = {"pattern": name, "criterion": criterion, "scope": scope, **data_of(criterion)}
    fresh = copy.deepcopy(model)
    fresh[0] = model[0].to_float()
    before = model[0].weight_mask.clone()
    assert 0.1 < model[0].sparsity < PATTERNS[name]
    if scope == "global" and (pattern.sparsity or criterion in ("wanda", "sparsegpt")):
        with pytest.raises(ValueError, match="scope='global' compares layers, but"):
            pyops.prune(model, share, **options)
        return
    new, alone = (pyops.prune(one, share, **options) for one in (model, fresh))
    assert torch.equal(model[0].weight_mask, before)
    assert not bool((new[0].weight_mask & ~before).any())
    masks, others = ([weights_in(m, i) for i in (0, 1, 3)] for m in (new, alone))
    gone, expected = ([pattern.gone(one) for one in found] for found in (masks, others))
    assert (sum(gone) if scope == "global" else gone) == (
        sum(expected) if scope == "global" else expected
    )
    assert all(pattern.conflict(one) is None for one in masks)
    if name in ("unstructured", "2:4"):
        assert sum(map(int, map(torch.sum, masks))) == sum(map(int, map(torch.sum, others)))
    for layer in (new[0], new[1], new[3]):
        assert bool((layer.weight[~layer.weight_mask] == 0).all())


def test_wanda_takes_the_rest_from_the_fuller_outputs():
    """Outputs that lack more than their share lose nothing, the others as much as one another."""
    layer = nn.Linear(10, 4)
    mask = torch.ones(4, 10, dtype=torch.bool)
    mask[0, :9] = False
    mask[1, 0] = False
    model = nn.Sequential(MaskedLinear.from_float(layer, mask))
    new = pyops.prune(model, 0.6, criterion="wanda", calibration=[torch.randn(20, 10)])[0]
    assert (~new.weight_mask).sum(1).tolist() == [9, 5, 5, 5]
    new = pyops.prune(model, retain=0.4, criterion="wanda", calibration=[torch.randn(20, 10)])[0]
    assert (~new.weight_mask).sum(1).tolist() == [9, 5, 5, 5]


@pytest.mark.parametrize(
    ("total", "sizes", "gone", "expected"),
    [
        (10, [5, 5, 5, 5], [0, 0, 0, 0], [3, 2, 3, 2]),
        (12, [10, 10], [9, 0], [9, 3]),
        (12, [10, 10, 4], [9, 3, 0], [9, 3, 0]),
        (12, [10, 10, 10], [0, 9, 9], [0, 9, 9]),
        (0, [3, 4], [0, 0], [0, 0]),
        (7, [3, 4], [0, 0], [3, 4]),
    ],
)
def test_share_out(total, sizes, gone, expected):
    assert share_out(total, sizes, gone) == expected


def test_share_out_of_many():
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        sizes = torch.randint(1, 20, (int(torch.randint(1, 30, ())),), generator=generator).tolist()
        gone = [int(torch.randint(0, one + 1, (), generator=generator)) for one in sizes]
        total = int(torch.randint(sum(gone), sum(sizes) + 1, (), generator=generator))
        found = share_out(total, sizes, gone)
        assert sum(found) == total
        assert all(g <= f <= s for g, f, s in zip(gone, found, sizes, strict=True))
        free = [f / s for g, f, s in zip(gone, found, sizes, strict=True) if f > g]
        rounding = [1 / s for g, f, s in zip(gone, found, sizes, strict=True) if f > g]
        if free:  # those that lose anything lose the same share, within one unit
            assert max(free) - min(free) <= 2 * max(rounding) + 1e-9


MESSAGES = {
    "block:4x1": (
        "prune: '0' lacks a part of 1 of its 16 units (4 x 1 weights) already, and pattern "
        "'block:4x1' keeps or removes them whole: "
    ),
    "1:4x4": (
        "prune: '0' lacks a part of 1 of its 16 units (4 x 1 weights) already, and pattern "
        "'1:4x4' keeps or removes them whole: "
    ),
    "3:4": (
        "prune: '0' has less than 3 of 4 inputs left in 1 of its 16 groups already (in one 2), and "
        "pattern '3:4' keeps 3: "
    ),
}
WAY_OUT = (
    "what is gone cannot come back (pyops.prune.unmask makes ordinary weights of it that are 0)"
)


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("inplace", [False, True])
def test_masks_that_do_not_fit_the_pattern(name, inplace):
    layer = nn.Linear(8, 8)
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[2, 4:6] = False
    if name != "3:4":
        mask[2, 5] = True
    model = nn.Sequential(MaskedLinear.from_float(layer, mask))
    before = copy.deepcopy(model.state_dict())
    share = 0.5 if name == "block:4x1" else None
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared)
        pyops.prune(model, share, pattern=name, inplace=inplace)
    assert str(error.value) == MESSAGES[name] + WAY_OUT
    with pytest.raises(ValueError) as error:  # noqa: PT011
        pyops.prune.Pruner(model, share, pattern=name, schedule=pyops.prune.CubicSchedule(0, 2))
    assert str(error.value) == (MESSAGES[name] + WAY_OUT).replace("prune:", "Pruner:", 1)
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    new = pyops.prune(pyops.prune.unmask(model), share, pattern=name)  # the way out
    assert (
        new[0].sparsity
        == pyops.prune(nn.Sequential(nn.Linear(8, 8)), share, pattern=name)[0].sparsity
    )


def test_a_smaller_last_group_keeps_what_it_has():
    mask = torch.ones(2, 6, dtype=torch.bool)
    model = nn.Sequential(MaskedLinear.from_float(nn.Linear(6, 2), mask))
    assert pyops.prune(model, pattern="2:4")[0].weight_mask[:, 4:].all()
    model[0].weight_mask[1, 5] = False
    with pytest.raises(ValueError, match=r"less than 2 of 4 inputs left in 1 of its 4 groups"):
        pyops.prune(model, pattern="2:4")


def test_a_layer_without_any_weight_left():
    """Global: nothing of it is saved, so no other layer loses a weight less."""
    model = pyops.prune(nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 4)), 0.1)
    model[1].set_mask(torch.zeros(4, 24, dtype=torch.bool))
    new = pyops.prune(model, 0.7, scope="global")
    assert sum(int((~layer.weight_mask).sum()) for layer in new) == round(0.7 * 480)
    assert not new[1].weight_mask.any()


def test_a_global_share_is_of_the_layers_that_calibration_reaches():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mask = torch.rand(8, 8).argsort(1) < 2
            self.used = MaskedLinear.from_float(nn.Linear(8, 8), mask)
            self.unused = nn.Linear(8, 8)

        def forward(self, x):
            return self.used(x)

    with pytest.raises(ValueError, match=r"lacks 48 units of .*, and sparsity=0\.5 is 32: what is"):
        pyops.prune(
            Branch(),
            0.5,
            criterion="gradient",
            scope="global",
            calibration=[torch.randn(5, 8)],
            loss=lambda m, x: m(x).sum(),
        )


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_values_behind_the_mask_count_as_zero(criterion):
    """Without a Pruner an optimizer's momentum writes there, and forward does not see it."""
    model, _ = masked_model("unstructured")
    torch.manual_seed(3)
    expected = pyops.prune(model, 0.7, criterion=criterion, **data_of(criterion))
    with torch.no_grad():
        model[0].weight[~model[0].weight_mask] = 5
    torch.manual_seed(3)
    found = pyops.prune(model, 0.7, criterion=criterion, **data_of(criterion))
    one, two = expected.state_dict(), found.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_tied_layers_with_different_masks():
    """Each mask stays: what one of them lacks is gone for both."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    new = pyops.prune(model, 0.25)
    lower = torch.ones(8, 8).tril().bool()
    new[1].set_mask(lower)
    both = new[0].weight_mask & lower
    again = pyops.prune(new, 0.75)
    assert torch.equal(again[0].weight_mask, again[1].weight_mask)
    assert not bool((again[0].weight_mask & ~both).any())
    assert again[0].sparsity == 0.75


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(8, 8))
    kinds = [type(layer) for layer in model]
    for workflow, call in (
        ("prune", lambda: pyops.prune(model, 0.5, inplace=True)),
        (
            "Pruner",
            lambda: pyops.prune.Pruner(model, 0.5, schedule=pyops.prune.CubicSchedule(0, 2)),
        ),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared)
            call()
        assert str(error.value) == (
            f"{workflow}: the weight of '0' was made in torch.inference_mode() and cannot be "
            "changed in place: clone it outside of that mode"
        )
    assert [type(layer) for layer in model] == kinds
    assert pyops.prune(model, 0.5)[0].sparsity == 0.5
