"""Plans: saved, applied to fresh models, refused where they do not fit."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import nn

from pyops.prune.channels import (
    apply_channel_plan,
    channel_plan,
    prune_channels,
)
from pyops.testing.channels import (
    IMAGES,
    Residual,
    filled,
    with_zeros,
)


def sizes(model):
    found = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear):
            found[name] = (m.in_features, m.out_features)
        elif isinstance(m, nn.Conv2d):
            found[name] = (m.in_channels, m.out_channels)
        elif isinstance(m, nn.BatchNorm2d):
            found[name] = m.num_features
    return found


def check(model, small, x):
    """The smaller model is the old one with zeros, which is not the old one."""
    with torch.no_grad():
        expected = with_zeros(model, channel_plan(small))(x)
        assert torch.allclose(small(x), expected, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(expected, model(x), rtol=1e-3)


def test_pruned_again():
    """The second plan counts in the first model, and rebuilds from it."""
    model = filled(Residual(width=64))
    once = prune_channels(model, 0.25, example_inputs=IMAGES, round_to=16)
    twice = prune_channels(once, 0.4, example_inputs=IMAGES, criterion="l2")
    assert sizes(twice)["stem"] == (3, 32)
    check(model, twice, IMAGES)
    plan = json.loads(json.dumps(channel_plan(twice)))
    assert [row["after"] for row in plan["groups"] if row["layers"][0] == "stem"] == [48, 32]
    again = apply_channel_plan(model, plan)
    assert all(map(torch.equal, again.state_dict().values(), twice.state_dict().values()))
    with pytest.raises(ValueError, match="the skeleton's channels are pruned already"):
        apply_channel_plan(once, plan)


def test_saved_as_a_plan_and_a_state_dict(tmp_path):
    small = prune_channels(filled(Residual()), 0.5, example_inputs=IMAGES)
    file = tmp_path / "small.pt"
    torch.save({"plan": json.dumps(channel_plan(small)), "state": small.state_dict()}, file)
    saved = torch.load(file)
    with torch.device("meta"):
        skeleton = Residual()
    new = apply_channel_plan(skeleton, json.loads(saved["plan"]))
    assert skeleton.stem.out_channels == 32
    assert new.stem.weight.is_meta
    new.load_state_dict(saved["state"], assign=True)
    assert torch.equal(new.eval()(IMAGES), small(IMAGES))
    assert channel_plan(new) == channel_plan(small)
    bare = Residual().double()
    assert apply_channel_plan(bare, channel_plan(small), inplace=True) is bare
    bare.load_state_dict(saved["state"])
    assert torch.equal(bare.eval()(IMAGES), small(IMAGES))


def test_plans_travel_with_copies():
    small = prune_channels(filled(Residual()), 0.5, example_inputs=IMAGES)
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert channel_plan(other) == channel_plan(small)
        assert torch.equal(other(IMAGES), small(IMAGES))
    plan = channel_plan(small)
    plan["layers"].clear()
    assert channel_plan(small)["layers"]


X = torch.randn(2, 3, 4, 4)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def grouped():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 4, 1))
    return model, prune_channels(model, 0.5, example_inputs=X, round_to=1)


def deep():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 4, 1))
    return model, prune_channels(model, 0.5, example_inputs=X, round_to=1)


def tied():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    model.insert(0, nn.Conv2d(3, 8, 1))
    model.append(nn.Conv2d(8, 4, 1))
    model[1].weight = model[2].weight
    return model, prune_channels(model, 0.5, example_inputs=X, round_to=1)


def single():
    model = plain()
    return model, prune_channels(model, 0.5, example_inputs=X, round_to=1)


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(plan):
        for key in path:
            plan = plan[key]
        plan[last] = value

    return change


BAD_KEPT = "apply_channel_plan: kept of 0 (out) must be rising numbers from 0 to 7, but is {}"


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (single, put("version", 2), "apply_channel_plan: the plan's version is 2, expected 1"),
        (
            single,
            lambda plan: plan.pop("version"),
            "apply_channel_plan: not a plan that channel_plan returned",
        ),
        (
            single,
            lambda plan: plan.pop("layers"),
            "apply_channel_plan: damaged plan: KeyError: 'layers'",
        ),
        (
            single,
            put("groups", {}),
            "apply_channel_plan: damaged plan: TypeError: groups is not a list",
        ),
        (
            single,
            put("layers", "0", []),
            "apply_channel_plan: damaged plan: AttributeError: 'list' object has no attribute "
            "'items'",
        ),
        (single, put("layers", "5", {}), "apply_channel_plan: the model has no layer '5'"),
        (
            single,
            put("layers", "1", {}),
            "apply_channel_plan: 1 is a ReLU, expected one of Linear, Conv1d, Conv2d, Conv3d, "
            "BatchNorm1d, BatchNorm2d, BatchNorm3d, PReLU",
        ),
        (
            single,
            put("layers", "0", "up", {}),
            "apply_channel_plan: 0 has no side 'up'",
        ),
        (
            single,
            put("layers", "0", "out", "channels", 16),
            "apply_channel_plan: 0 has 8 channels (out), the plan expects 16",
        ),
        (single, put("layers", "0", "out", "kept", [1, 0]), BAD_KEPT.format("[1, 0]")),
        (single, put("layers", "0", "out", "kept", [1, 1]), BAD_KEPT.format("[1, 1]")),
        (single, put("layers", "0", "out", "kept", [-1, 1]), BAD_KEPT.format("[-1, 1]")),
        (single, put("layers", "0", "out", "kept", [1, 8]), BAD_KEPT.format("[1, 8]")),
        (single, put("layers", "0", "out", "kept", []), BAD_KEPT.format("[]")),
        (single, put("layers", "0", "out", "kept", [True]), BAD_KEPT.format("[True]")),
        (
            single,
            put("layers", "0", "out", "kept", "x" * 99),
            BAD_KEPT.format("'" + "x" * 56 + "..."),
        ),
        (
            grouped,
            put("layers", "1", "in", "kept", [0, 1, 4, 6]),
            "apply_channel_plan: the groups of 1 (in) keep other ones",
        ),
        (
            deep,
            put("layers", "1", "in", "kept", [0]),
            "apply_channel_plan: 1 keeps other inputs than outputs",
        ),
        (
            deep,
            lambda plan: plan["layers"]["1"].pop("in"),
            "apply_channel_plan: damaged plan: KeyError: 'in'",
        ),
        (
            tied,
            put("layers", "2", "in", "kept", [0]),
            "apply_channel_plan: 2 shares its weight with 1, but keeps others",
        ),
        (
            tied,
            lambda plan: plan["layers"].pop("2"),
            "apply_channel_plan: 2 shares its weight with 1, but keeps others",
        ),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_plans_that_are_refused(make, change, message, inplace):
    model, small = make()
    state = copy.deepcopy(model.state_dict())
    plan = channel_plan(small)
    again = apply_channel_plan(model, plan)
    assert all(map(torch.equal, again.state_dict().values(), small.state_dict().values()))
    change(plan)
    with pytest.raises(ValueError, match="_") as found:
        apply_channel_plan(model, plan, inplace=inplace)
    assert str(found.value) == message
    assert all(map(torch.equal, model.state_dict().values(), state.values()))


def test_a_plan_for_what_is_no_model():
    with pytest.raises(TypeError, match=r"^apply_channel_plan takes an nn.Module, but got int$"):
        apply_channel_plan(3, {})
    model, small = single()
    with pytest.raises(ValueError, match=r"^apply_channel_plan: not a plan that channel_plan ret"):
        apply_channel_plan(model, [channel_plan(small)])
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"^apply_channel_plan: 0 has hooks$"):
        apply_channel_plan(model, channel_plan(small))
