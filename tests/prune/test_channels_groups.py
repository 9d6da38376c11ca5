"""channel_groups and masked_channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyops.prune.channels import (
    channel_groups,
    channel_plan,
    masked_channels,
)
from pyops.testing.channels import (
    IMAGES,
    Residual,
    filled,
    net,
    with_zeros,
)


def test_masked_channels_are_zero_and_compute_the_same():
    model = filled(Residual())
    groups = channel_groups(model, IMAGES)
    index = next(i for i, group in enumerate(groups) if group.name == "inner")
    assert groups[index].size == 48
    assert str(groups[index]) == "48 channels of inner out, bn1 out, outer in"
    removed = [0, 5, 47]
    masked = masked_channels(model, groups, {index: removed})
    for name, before in model.state_dict().items():
        after = masked.state_dict()[name]
        changed = {
            "inner.weight": (removed, slice(None)),
            "bn1.weight": removed,
            "bn1.bias": removed,
            "outer.weight": (slice(None), removed),
        }.get(name)
        expected = before.clone()
        if changed is not None:
            expected[changed] = 0
        assert torch.equal(after, expected), name
    kept = [i for i in range(48) if i not in removed]
    plan = {"layers": {"bn1": {"out": {"channels": 48, "kept": kept}}}}
    with torch.no_grad():
        assert torch.allclose(masked(IMAGES), with_zeros(model, plan)(IMAGES), rtol=1e-10)
        assert not torch.allclose(masked(IMAGES), model(IMAGES), rtol=1e-3)


def test_groups_are_printed_a_line_each():
    groups = channel_groups(filled(Residual()), IMAGES)
    assert str(groups).splitlines() == [
        "32 channels of stem out, bn0 out, inner in, outer out, bn2 out, fc in",
        "3 channels of stem in; stay: stem (Conv2d) reads what has a fixed size",
        "48 channels of inner out, bn1 out, outer in",
        "5 channels of fc out; stay: they are the model's output",
    ]
    (stem,) = [group for group in groups if group.name == "stem" and group.size == 32]
    assert stem.paths == ("stem", "bn0", "outer", "bn2")
    member = stem.members[0]
    assert (member.path, member.axis) == ("stem", "out")
    assert torch.equal(member.positions, torch.arange(32)[:, None])


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({7: [0]}, "masked_channels: there is no group 7, expected 0 to 2"),
        ({0: [8]}, "masked_channels: group 0 has no channel 8, expected 0 to 7"),
        (
            {2: [0]},
            "masked_channels: the channels of group 2 stay: they are the model's output",
        ),
    ],
)
def test_masks_that_are_refused(removed, message):
    model = plain().double()
    with pytest.raises(ValueError, match="_") as found:
        masked_channels(model, channel_groups(model, IMAGES), removed)
    assert str(found.value) == message


def test_other_workflows_name_themselves():
    with pytest.raises(TypeError, match=r"^channel_groups takes an nn.Module, but got int$"):
        channel_groups(3)
    branching = net(lambda m, x: x if x.sum() > 0 else -x)
    with pytest.raises(ValueError, match=r"^channel_groups: the graph of Net cannot be made"):
        channel_groups(branching, IMAGES)
    with pytest.raises(ValueError, match="_") as found:
        channel_plan(plain())
    assert str(found.value) == (
        "channel_plan: the Sequential has no plan: prune_channels did not make it"
    )
